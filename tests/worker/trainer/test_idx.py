import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from worker.trainer.idx import read_idx


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("encode", [lambda content: content, gzip.compress], ids=["plain", "gzipped"])
def test_an_idx_file_gives_back_its_array(tmp_path: Path, encode):
    file = tmp_path / "images"
    file.write_bytes(encode(idx_bytes(IMAGES)))

    assert np.array_equal(read_idx(file, (2, 3, 4)), IMAGES)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "too short"),
        (b"GIF89a" * 10, "not an IDX file"),
        (idx_bytes(IMAGES)[:-1], "ends after 39 of 40 bytes"),
        (idx_bytes(IMAGES) + b"x", "goes on"),
        (idx_bytes(IMAGES[0]).ljust(40), "has 2 axes, not 3"),
        (idx_bytes(IMAGES.reshape(3, 2, 4)), "has the shape 3×2×4, not 2×3×4"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:-12], "gzip stream is damaged"),
    ],
)
def test_a_file_that_is_wrong_says_what_is_wrong_with_it(tmp_path: Path, content: bytes, complaint: str):
    file = tmp_path / "images"
    file.write_bytes(content)

    with pytest.raises(ValueError, match=complaint):
        read_idx(file, (2, 3, 4))


def test_a_gzip_file_that_unpacks_to_far_too_much_is_not_unpacked(tmp_path: Path):
    file = tmp_path / "images"
    file.write_bytes(gzip.compress(idx_bytes(IMAGES) + bytes(50_000_000)))

    with pytest.raises(ValueError, match="goes on"):
        read_idx(file, (2, 3, 4))
