"""Both ways of reading numbers give one and the same array, or the quick way gives none."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.inference.floats import FloatReader
from api.inference.rows import array_of, parse_rows
from core.errors import EvenkeelError

SHAPE = (3,)
NUMBER = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.just(1e39)
ODD = st.none() | st.booleans() | st.text(max_size=2) | st.lists(st.integers(0, 3), max_size=3)
ROW = st.lists(NUMBER, min_size=3, max_size=3) | st.lists(NUMBER | ODD, max_size=4) | ODD
READER = FloatReader()


def exactly(content: bytes) -> Any:
    try:
        return array_of(parse_rows(content, 10), SHAPE, ())
    except EvenkeelError:
        return None


@settings(max_examples=400, deadline=None)
@given(rows=st.lists(ROW, max_size=12), more=st.dictionaries(st.sampled_from(["rows", "x"]), st.integers(), max_size=1))
def test_what_the_quick_way_reads_the_exact_way_reads_alike(rows: Any, more: Any) -> None:
    content = json.dumps({"rows": rows} | {name: value for name, value in more.items() if name != "rows"}).encode()

    quick = READER.rows(content, SHAPE, 10)

    if quick is not None and np.isfinite(quick).all():
        exact = exactly(content)
        assert exact is not None
        assert quick.tobytes() == exact.tobytes()


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3), min_size=1, max_size=10))
def test_the_usual_form_is_read_the_quick_way(rows: Any) -> None:
    quick = READER.rows(json.dumps({"rows": rows}).encode(), SHAPE, 10)

    assert quick is not None
    assert quick.tobytes() == exactly(json.dumps({"rows": rows}).encode()).tobytes()


@pytest.mark.parametrize(
    "content",
    [
        b'{"rows":[[1,2,3]],"rows":[[4,5,6]]}',
        b'{"rows":[[[1,2],[],3]]}',
        b'{"rows":[[1,2,true]]}',
        b'{"rows":[[1,2,3]]} x',
        b'{"rows":[[1,2,3],]}',
        b'{"rows":[]}',
        b"[[1,2,3]]",
        b"\xff",
        b"",
        b"{" * 5000,
    ],
)
def test_what_is_not_usual_is_left_to_the_exact_way(content: bytes) -> None:
    assert READER.rows(content, SHAPE, 10) is None
    assert READER.rows(b'{"rows":[[1,2,3]]}', SHAPE, 10) is not None  # and the reader goes on
