"""Local copies: bounded, checked, and shared by processes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.artifact_cache import ArtifactCache

CROWD = """
import hashlib, pathlib, random, sys
from core.artifact_cache import ArtifactCache
cache = ArtifactCache(pathlib.Path(sys.argv[1]), 5_000)
numbers = random.Random(sys.argv[2])
hits = 0
for _ in range(500):
    content = bytes([numbers.randrange(40)]) * 500
    digest = hashlib.sha256(content).hexdigest()
    found = cache.get(digest)
    assert found in (None, content)
    hits += found is not None
    cache.put(digest, content)
print(hits)
"""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.iterdir() if path.name != ".lock"]


def keep(cache: ArtifactCache, folder: Path, content: bytes, second: int) -> None:
    cache.put(digest(content), content)
    os.utime(folder / digest(content), (second, second))


def test_what_was_unused_for_longest_leaves_first(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, 30)
    for second, letter in enumerate((b"a", b"b", b"c")):
        keep(cache, tmp_path, letter * 10, second)

    assert cache.get(digest(b"a" * 10)) == b"a" * 10
    cache.put(digest(b"d" * 10), b"d" * 10)

    present = [letter for letter in (b"a", b"b", b"c", b"d") if cache.get(digest(letter * 10))]
    assert present == [b"a", b"c", b"d"]
    assert sum(sizes(tmp_path)) == 30


def test_what_is_larger_than_the_bound_drives_nothing_out(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, 30)
    cache.put(digest(b"small"), b"small")

    cache.put(digest(b"x" * 31), b"x" * 31)

    assert cache.get(digest(b"small")) == b"small"
    assert cache.get(digest(b"x" * 31)) is None


def test_a_corrupt_copy_is_no_hit_and_is_removed(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, 30)
    cache.put(digest(b"weights"), b"weights")
    (tmp_path / digest(b"weights")).write_bytes(b"weighty")

    assert cache.get(digest(b"weights")) is None
    assert sizes(tmp_path) == []


def test_half_a_copy_of_a_process_that_died_leaves_first(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, 30)
    half = tmp_path / ".0123.tmp"
    half.write_bytes(b"h" * 20)

    cache.put(digest(b"w" * 20), b"w" * 20)

    assert sizes(tmp_path) == [20]
    assert cache.get(digest(b"w" * 20)) == b"w" * 20


def test_a_full_disk_only_means_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache = ArtifactCache(tmp_path, 30)

    cache.put(digest(b"weights"), b"weights")

    assert cache.get(digest(b"weights")) is None
    assert sizes(tmp_path) == []


def test_processes_at_once_see_whole_copies_only_and_keep_the_bound(tmp_path: Path) -> None:
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, str(tmp_path), seed],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2", "3")
    ]

    answers = [process.communicate(timeout=30) for process in crowd]

    assert [warnings for _, warnings in answers] == ["", "", ""]
    assert min(int(hits) for hits, _ in answers) > 0
    assert 0 < sum(sizes(tmp_path)) <= 5_000


def test_an_open_copy_is_readable_after_it_has_left(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, 30)
    cache.put(digest(b"a" * 20), b"a" * 20)

    opened = cache.open(digest(b"a" * 20))
    cache.put(digest(b"b" * 20), b"b" * 20)

    assert opened is not None
    with opened:
        opened.seek(0)
        assert opened.read() == b"a" * 20
    assert cache.open(digest(b"a" * 20)) is None


def test_a_corrupt_copy_is_not_opened(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, 30)
    cache.put(digest(b"a" * 20), b"a" * 20)
    (tmp_path / digest(b"a" * 20)).write_bytes(b"b" * 20)

    assert cache.open(digest(b"a" * 20)) is None
    assert sizes(tmp_path) == []
