"""The file that trainers map: plain safetensors, whatever was uploaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from api.uploads.contents import Contents
from api.uploads.writing import write_contents


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (5, 3, 7, 7), dtype=np.uint8)
    fields = [{"name": "größe", "categories": ["a"]}]
    contents = Contents(
        "classification",
        "image",
        images,
        np.arange(5),
        images[:2].astype(">f4"),
        np.arange(2),
        ("a", "b"),
        ("größe",),
        fields,
    )

    write_contents(contents, tmp_path / "file")

    with safe_open(tmp_path / "file", "np") as file:
        assert np.array_equal(file.get_tensor("inputs"), images)
        assert file.get_tensor("inputs").dtype == np.uint8
        assert np.array_equal(file.get_tensor("test_inputs"), images[:2].astype(np.float32))
        assert file.get_tensor("targets").tolist() == [0, 1, 2, 3, 4]
        metadata = {name: json.loads(text) for name, text in file.metadata().items()}
    assert metadata == {"labels": ["a", "b"], "columns": ["größe"], "fields": fields}


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (np.bool_, np.uint8),
        (np.uint8, np.uint8),
        (np.float16, np.float32),
        (np.int16, np.float32),
        (np.float32, np.float32),
        (">f4", np.float32),
        (np.int64, np.float64),
        (np.float64, np.float64),
    ],
)
def test_inputs_are_kept_as_the_smallest_type_that_holds_them(tmp_path: Path, dtype: Any, stored: Any) -> None:
    table = np.asfortranarray(np.arange(12).reshape(6, 2).astype(dtype))

    write_contents(Contents("regression", "table", table, np.arange(6.0)), tmp_path / "file")

    with safe_open(tmp_path / "file", "np") as file:
        assert file.get_tensor("inputs").dtype == stored
        assert np.array_equal(file.get_tensor("inputs"), table)


def test_equal_contents_are_equal_bytes_and_lie_on_multiples_of_their_size(tmp_path: Path) -> None:
    contents = Contents("classification", "table", np.ones((3, 5), np.float32), np.arange(3), labels=("a", "b", "c"))

    for name in ("one", "two"):
        write_contents(contents, tmp_path / name)

    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "two").read_bytes()
    size = int.from_bytes(content[:8], "little")
    starts = {
        name: entry["data_offsets"][0] for name, entry in json.loads(content[8 : 8 + size]).items() if name[0] != "_"
    }
    assert size % 8 == 0
    assert starts == {"targets": 0, "inputs": 24}
