"""Archives of somebody else's: whatever is in them, they are read as arrays of numbers or refused by name."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.uploads.archives import read_arrays
from core.errors import InputInvalid

BOUND = 10**6
X, Y = np.arange(12.0).reshape(6, 2), np.arange(6)


def packed(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **({"x": X, "y": Y} | arrays))
    return file.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def described(descr: str, shape: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + length + header + data


def read(content: bytes, folder: Path, bound: int = BOUND) -> dict[str, Any]:
    (folder / "upload").write_bytes(content)
    return read_arrays(folder / "upload", folder, bound)


def refused(content: bytes, folder: Path, bound: int = BOUND) -> tuple[str, str]:
    with pytest.raises(InputInvalid) as caught:
        read(content, folder, bound)
    (problem,) = caught.value.problems
    return problem.pointer, problem.code


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("x", [X, np.asfortranarray(X), X.astype(">f4"), X.astype(np.uint8), X > 3])
def test_arrays_come_back_as_they_were(tmp_path: Path, save: Any, x: Any) -> None:
    file = io.BytesIO()
    save(file, x=x, y=np.array(list("abcabc")), labels=np.array(["a", "b", "c"]))

    arrays = read(file.getvalue(), tmp_path)

    assert np.array_equal(arrays["x"], x)
    assert arrays["y"].tolist() == list("abcabc")
    assert sorted(arrays) == ["labels", "x", "y"]


@pytest.mark.parametrize(
    ("arrays", "pointer", "code"),
    [
        ({"x": np.array([[1, "a"]], object)}, "/body/x", "objects"),
        ({"y": np.array([None] * 6)}, "/body/y", "objects"),
        ({"x": X.astype(complex)}, "/body/x", "type"),
        ({"x": np.array([["a"]])}, "/body/x", "type"),
        ({"x": np.zeros(3, [("a", "f8")])}, "/body/x", "type"),
        ({"y": np.zeros(6, "M8[s]")}, "/body/y", "type"),
        ({"labels": np.arange(3)}, "/body/labels", "type"),
        ({"x": np.zeros((0, 3))}, "/body/x", "empty"),
        ({"y": np.float64(3.0)}, "/body/y", "empty"),
        ({"X": X}, "/body/X.npy", "unknown_member"),
        ({"x_test": X}, "/body/y_test", "missing"),
        ({"y_test": Y}, "/body/x_test", "missing"),
    ],
)
def test_what_is_no_array_of_ours_is_named(tmp_path: Path, arrays: Any, pointer: str, code: str) -> None:
    assert refused(packed(**arrays), tmp_path) == (pointer, code)


def test_a_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pickle.loads", lambda *_: pytest.fail("unpickled"))
    pickled = zipped({"x.npy": npy(X), "y.npy": npy(np.array([{"a": print}], object))})

    assert refused(pickled, tmp_path) == ("/body/y", "objects")


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    assert refused(zipped({"x.npy": npy(X)}), tmp_path) == ("/body/y", "missing")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = zipped({"x.npy": npy(np.zeros((1000, 1000))), "y.npy": npy(Y)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**5

    assert refused(bomb, tmp_path) == ("/body/x", "too_large")
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]


def test_members_that_are_only_large_together_are_refused(tmp_path: Path) -> None:
    assert refused(packed(x=np.zeros((600, 100)), y=np.zeros(70_000)), tmp_path) == ("/body/y", "too_large")


def test_a_header_that_promises_more_than_there_is_allocates_nothing(tmp_path: Path) -> None:
    promising = zipped({"x.npy": described("'<f8'", "(1000000000000, 1000)", b"\0" * 64), "y.npy": npy(Y)})

    assert refused(promising, tmp_path) == ("/body/x", "size")


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\x93NUMPY",
        described("'<f8'", "(-1, -8)", b"\0" * 64),
        described("'<f8'", "'a'"),
        described("[[[", "(1,)"),
        described("__import__('os')", "(1,)"),
        described("'<f8'", "(" * 3000 + ")" * 3000),
        described("'<f8'", "(8,)", b"\0" * 64, b"\x02\x00"),
        described("'<f8'", "(8,)", b"\0" * 64, b"\x09\x00"),
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, member: bytes) -> None:
    pointer, code = refused(zipped({"x.npy": member, "y.npy": npy(Y)}), tmp_path)

    assert (pointer, code) in {("/body/x", "unreadable"), ("/body/x", "version")}


def test_a_list_of_very_many_members_is_not_read(tmp_path: Path) -> None:
    crowd = zipped({f"{number}.npy": b"" for number in range(2000)})

    assert refused(crowd, tmp_path) == ("/body", "too_many_members")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for _ in range(2):
            archive.writestr("x.npy", npy(X))

    assert refused(file.getvalue(), tmp_path) == ("/body/x", "member_twice")


@given(cut=st.integers(0, 2000), flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_is_refused_or_read_but_never_an_error_of_ours(
    tmp_path: Path, cut: int, flips: list[tuple[int, int]]
) -> None:
    content = bytearray(packed(y=np.array(list("abcabc"))))
    for place, flip in flips:
        content[place % len(content)] ^= flip
    damaged = bytes(content[: len(content) - cut]) if cut < len(content) else b""

    try:
        arrays = read(damaged, tmp_path)
    except InputInvalid as error:
        assert error.problems[0].pointer.startswith("/body")
    else:
        assert all(array.dtype.kind in "buifU" for array in arrays.values())
