"""CSV as people write it: quotes, byte order marks, both line ends, empty lines; and problems by row and column."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from api.uploads import tables
from api.uploads.contents import Contents, Reading
from api.uploads.tables import contents_of
from core.errors import InputInvalid


def read(text: str | bytes, folder: Path, **reading: Any) -> Contents:
    file = folder / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return contents_of(file, Reading(**reading))


def refused(text: str | bytes, folder: Path, **reading: Any) -> tuple[str, str, str]:
    with pytest.raises(InputInvalid) as caught:
        read(text, folder, **reading)
    (problem,) = caught.value.problems
    return problem.pointer, problem.code, problem.message


@pytest.mark.parametrize(
    "text",
    [
        'age,"co,lour",price\n1,"re""d",2.5\n-2e0,blue,3\n',
        '\ufeffage,"co,lour",price\r\n1,"re""d",2.5\r\n\r\n-2,blue,3\r\n\r\n',
        '\n age , "co,lour", price \n 1 , "re""d", 2.5\n   \n-2.0, blue ,3',
    ],
)
def test_a_table_is_read_however_it_is_written(tmp_path: Path, text: str) -> None:
    contents = read(text, tmp_path)

    assert contents.columns == ("age", "co,lour=blue", 'co,lour=re"d')
    assert contents.inputs.tolist() == [[1.0, 0.0, 1.0], [-2.0, 1.0, 0.0]]
    assert contents.fields == [
        {"name": "age", "categories": None},
        {"name": "co,lour", "categories": ["blue", 're"d']},
    ]
    assert (contents.task, contents.targets.tolist()) == ("regression", [2.5, 3.0])


@pytest.mark.parametrize(
    ("targets", "task", "labels"),
    [
        (["1", "0", "10"], "classification", ("0", "1", "10")),
        (["yes", "no", "yes"], "classification", ("no", "yes")),
        (["1.0", "0", "1"], "regression", ()),
    ],
)
def test_the_way_targets_are_written_says_what_they_are(tmp_path: Path, targets: Any, task: str, labels: Any) -> None:
    contents = read("a,y\n" + "".join(f"{row},{target}\n" for row, target in enumerate(targets)), tmp_path)

    assert (contents.task, contents.labels) == (task, labels)
    if labels:
        assert [labels[number] for number in contents.targets] == targets


def test_any_column_may_be_the_target_and_the_task_may_be_said(tmp_path: Path) -> None:
    contents = read("y,a\n3,1\n4,2\n", tmp_path, target="y", task="regression")

    assert (contents.columns, contents.targets.tolist()) == (("a",), [3.0, 4.0])


def test_codes_that_are_no_quantities_become_categories_when_asked(tmp_path: Path) -> None:
    contents = read("zip,y\n10115,1.5\n80331,2.5\nnone,3.5\n", tmp_path, categories=("zip",))

    assert contents.columns == ("zip=10115", "zip=80331", "zip=none")
    assert contents.inputs.tolist() == np.eye(3).tolist()


def test_parts_of_a_table_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS_A_PART", 7)
    text = "a,b,y\n" + "".join(f"{row},{'xyz'[row % 3]},{row % 2}\n" for row in range(50))

    contents = read(text, tmp_path)

    assert contents.inputs[:, 0].tolist() == list(range(50))
    assert contents.inputs[:, 1:].argmax(axis=1).tolist() == [row % 3 for row in range(50)]
    assert contents.targets.tolist() == [row % 2 for row in range(50)]


@pytest.mark.parametrize(
    ("text", "pointer", "code"),
    [
        ("", "/body", "empty"),
        ("\n\n", "/body", "empty"),
        ("a,y\n", "/body", "empty"),
        ("a\n1\n", "/body/header", "one_column"),
        ("a;y\n1;2\n", "/body/header", "one_column"),
        ("1,2\n3,4\n", "/body/header", "no_header"),
        ("a,a\n1,2\n", "/body/header/1", "header"),
        ("a,\n1,2\n", "/body/header/1", "header"),
        ("a,y\n1,2,3\n", "/body/0", "width"),
        ("a,y\n1,2\n3\n", "/body/1", "width"),
        ("a,y\n1,2\n,4\n", "/body/1/a", "missing"),
        ("a,y\n1,2\n3, \n", "/body/1/y", "missing"),
        ("a,y\n1,2\nNaN,4\n", "/body/1/a", "not_finite"),
        ("a,y\n1,2\n1e39,4\n", "/body/1/a", "not_finite"),
        ("a,y\n1,2\n3,-inf\n", "/body/1/y", "not_finite"),
        ("a,y\n1,2\nn/a,4\n", "/body/1/a", "no_number"),
        ("a,y\n1,2\n1_000,4\n", "/body/1/a", "no_number"),
        ("a/b,y\nx,1\n3,2\n", "/body/1/a~1b", "no_text"),
        ("a,y\nx\x07,1\nx,2\n", "/body/0/a", "text"),
        ('a,y\n1,"2\n', "/body", "not_csv"),
        ("a,y\n1,5\n2,5\n", "/body/header/y", "one_class"),
        ("a,y\n" + "".join(f"1,{row}\n" for row in range(1001)), "/body/header/y", "too_many_classes"),
        ("a,y\n" + "".join(f"t{row},1.5\n" for row in range(257)), "/body/256/a", "too_many_categories"),
        ("a,a=x,y\nx,1,1\ny,2,2\n", "/body/header", "header"),
        (b"a,y\n\xff,1\n", "/body", "not_utf8"),
    ],
)
def test_what_can_not_be_used_is_named_by_row_and_column(tmp_path: Path, text: Any, pointer: str, code: str) -> None:
    assert refused(text, tmp_path)[:2] == (pointer, code)


def test_a_problem_tells_row_line_and_column(tmp_path: Path) -> None:
    message = refused('a,y\n\n"1",2\n\n\nn/a,4\n', tmp_path)[2]

    assert message.startswith("row 2 (line 6), column 'a': is 'n/a'")


@pytest.mark.parametrize(
    ("reading", "pointer"),
    [
        ({"target": "z"}, "/query/target"),
        ({"categories": ("z",)}, "/query/categories"),
        ({"kind": "sequence"}, "/query/kind"),
    ],
)
def test_a_reading_that_does_not_fit_is_refused(tmp_path: Path, reading: Any, pointer: str) -> None:
    assert refused("a,y\n1,2\n3,4\n", tmp_path, **reading)[0] == pointer


def test_texts_are_no_values_and_fractions_no_classes(tmp_path: Path) -> None:
    assert refused("a,y\n1,b\n2,c\n", tmp_path, task="regression")[:2] == ("/body/header/y", "no_values")
    assert refused("a,y\n1,1.5\n2,2\n", tmp_path, task="classification")[:2] == ("/body/header/y", "no_class")


CELLS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Z", "S")), min_size=1, max_size=8)
FINITE = st.floats(-1e30, 1e30)


@given(
    rows=st.lists(st.tuples(FINITE, CELLS, FINITE), min_size=1, max_size=20),
    ends=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_csv_writer_wrote_is_what_is_read(tmp_path: Path, rows: Any, ends: str, mark: bool) -> None:
    assume(all(text.strip() and text.strip().isprintable() for _, text, _ in rows))
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=ends).writerows([("number", "text", "y"), *rows])
    content = ("\ufeff" if mark else "") + file.getvalue()

    contents = read(content, tmp_path, task="regression", categories=("text",))

    names = sorted({text.strip() for _, text, _ in rows})
    assert contents.fields[1]["categories"] == names
    assert contents.inputs[:, 0].tolist() == [number for number, _, _ in rows]
    assert [names[place] for place in contents.inputs[:, 1:].argmax(axis=1)] == [text.strip() for _, text, _ in rows]
    assert contents.targets.tolist() == [target for _, _, target in rows]


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_that_are_no_table_are_refused_but_never_an_error_of_ours(tmp_path: Path, content: bytes) -> None:
    try:
        read(b"a,y\n" + content, tmp_path)
    except InputInvalid as error:
        assert error.problems
