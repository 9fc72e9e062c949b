"""Rows of a table with texts: as it was uploaded, or as the network takes them."""

from typing import Any

import numpy as np
import pytest

from api.inference.categories import by_column
from api.inference.rows import array_of
from core.errors import InputInvalid

FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "size", "categories": None},
    {"name": "a/b", "categories": ["blue", "red"]},
)
COLUMNS = ("size", "a/b=blue", "a/b=red")


def read(rows: list[Any]) -> Any:
    return array_of(by_column(rows, FIELDS, COLUMNS), (3,), COLUMNS)


@pytest.mark.parametrize(
    "row",
    [[2, "red"], {"a/b": "red", "size": 2}, [2.0, 0, 1], {"size": 2, "a/b=blue": 0, "a/b=red": 1}],
)
def test_a_row_may_be_what_was_uploaded_or_what_the_network_takes(row: Any) -> None:
    assert np.array_equal(read([row, row]), [[2.0, 0.0, 1.0]] * 2)


@pytest.mark.parametrize(
    ("rows", "pointer", "code"),
    [
        ([[2, "green"]], "/rows/0/a~1b", "unknown_category"),
        ([[2, "red"], [2, ["red"]]], "/rows/1/a~1b", "unknown_category"),
        ([[2, "red"], [2, None]], "/rows/1/a~1b", "unknown_category"),
        ([["2", "red"]], "/rows/0/size", "not_a_number"),
        ([[None, "red"]], "/rows/0/size", "missing"),
        ([[2, "red"], [2]], "/rows/1", "wrong_width"),
        ([{"size": 2}], "/rows/0/a~1b", "missing"),
        ([{"size": 2, "a/b": "red", "c": 1}], "/rows/0/c", "unknown_column"),
        ([[2, "red"], 7], "/rows/1", "not_a_row"),
        ([7], "/rows/0", "not_a_list"),
        ([[2, 0, 1, 0]], "/rows/0", "wrong_width"),
    ],
)
def test_what_is_no_row_of_the_table_is_pointed_at(rows: Any, pointer: str, code: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        read(rows)

    (problem,) = caught.value.problems
    assert (problem.pointer, problem.code) == (pointer, code)


def test_other_models_take_their_rows_as_before() -> None:
    rows = [[1, 2], [3, 4]]

    assert by_column(rows, (), ()) is rows
