"""The artifact store: whole or not at all, and checked when read."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from core.artifacts import ArtifactStore
from core.errors import StorageAway, StorageFailed


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


def test_what_is_put_is_got_back(store: ArtifactStore) -> None:
    artifact = store.put("a/b.bin", b"weights")

    assert store.get("a/b.bin", artifact.sha256) == b"weights"
    assert artifact.sha256 == hashlib.sha256(b"weights").hexdigest()


def test_equal_content_is_stored_once(store: ArtifactStore) -> None:
    first = store.put_content(b"same", ".onnx")
    second = store.put_content(b"same", ".onnx")

    assert first == second
    assert store.names("content") == [first.name]


def test_a_changed_byte_is_found_when_read(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put("a.bin", b"weights")
    (tmp_path / "artifacts" / "a.bin").write_bytes(b"weighty")

    with pytest.raises(StorageFailed, match=r"a\.bin is corrupt"):
        store.get("a.bin", artifact.sha256)


def test_a_missing_artifact_is_named(store: ArtifactStore) -> None:
    with pytest.raises(StorageFailed, match=r"can not read artifact gone\.bin"):
        store.get("gone.bin", "0" * 64)


def test_a_folder_that_is_gone_is_a_mount_that_is_away(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "mount"))

    with pytest.raises(StorageAway, match=r"mount .*/mount, or make the folder"):
        store.get("a.bin", "0" * 64)
    (tmp_path / "mount").mkdir()
    with pytest.raises(StorageFailed, match=r"a\.bin") as caught:
        store.get("a.bin", "0" * 64)
    assert not isinstance(caught.value, StorageAway)


def test_a_full_disk_leaves_no_file_behind(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.put("a/before.bin", b"weights")
    monkeypatch.setattr("core.artifacts.os.fsync", full)

    with pytest.raises(StorageFailed, match="No space left"):
        store.put("a/b.bin", b"weights")
    assert [file.name for file in (tmp_path / "artifacts" / "a").iterdir()] == ["before.bin"]


def test_deleting_twice_is_no_error(store: ArtifactStore) -> None:
    store.put("a.bin", b"x")

    store.delete("a.bin")
    store.delete("a.bin")

    assert store.names("") == []


def test_an_object_store_works_the_same() -> None:
    store = ArtifactStore("memory://bucket/prefix")

    artifact = store.put("a/b.bin", b"weights")

    assert store.get("a/b.bin", artifact.sha256) == b"weights"


def test_new_folders_are_as_durable_as_the_file_in_them(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    monkeypatch.setattr(
        "core.artifacts.os.fsync", lambda descriptor: synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())
    )

    store.put("a/b/c.bin", b"weights")

    root = tmp_path / "artifacts"
    assert {tmp_path, root, root / "a", root / "a" / "b"} <= synced


def test_a_file_is_put_and_opened_without_being_read_whole(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"rows" * 1000)

    artifact = store.put_file("a/b.bin", tmp_path / "large")

    assert (artifact.sha256, artifact.bytes) == (hashlib.sha256(b"rows" * 1000).hexdigest(), 4000)
    with store.open("a/b.bin", artifact.sha256) as file:
        assert file.read() == b"rows" * 1000


def test_a_file_that_is_changed_or_gone_is_not_opened(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.put("a.bin", b"weights")
    (tmp_path / "artifacts" / "a.bin").write_bytes(b"weighty")

    with pytest.raises(StorageFailed, match=r"a\.bin is corrupt"):
        store.open("a.bin", artifact.sha256)
    with pytest.raises(StorageFailed, match=r"can not read artifact b\.bin"):
        store.open("b.bin", artifact.sha256)


def test_another_file_system_of_fsspec_opens_files_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.artifacts.PART_BYTES", 7)
    (tmp_path / "large").write_bytes(b"rows" * 1000)
    store = ArtifactStore("memory://of-a-test", tmp_path / "cache", 10_000)

    artifact = store.put_file("a.bin", tmp_path / "large")

    with store.open("a.bin", artifact.sha256) as first, store.open("a.bin", artifact.sha256) as second:
        assert first.read() == second.read() == b"rows" * 1000
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name != ".lock"] == [artifact.sha256]
