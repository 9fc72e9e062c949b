import gzip
import hashlib
import os
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from core.errors import JobFailed, StorageFailed
from worker.trainer.files import DataFolder, RemoteFile

LABELS = np.array([3, 1, 4, 1, 5], dtype=np.uint8)
CONTENT = gzip.compress(struct.pack(">HBBI", 0, 8, 1, 5) + LABELS.tobytes())
FILE = RemoteFile("labels.gz", hashlib.sha256(CONTENT).hexdigest(), (5,))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """URL of a mirror that has `mnist/labels.gz`."""
    folder = tmp_path / "mirror"
    (folder / "mnist").mkdir(parents=True)
    (folder / "mnist" / FILE.name).write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tmp"))


def test_a_missing_file_is_downloaded_checked_and_kept(tmp_path: Path, mirror: str):
    folder = DataFolder(tmp_path / "data", mirror)

    array = folder.array("mnist", FILE)

    assert np.array_equal(array, LABELS)
    assert (tmp_path / "data" / "mnist" / FILE.name).read_bytes() == CONTENT
    assert leftovers(tmp_path) == []


def test_a_download_with_another_checksum_is_refused_and_not_kept(tmp_path: Path, mirror: str):
    folder = DataFolder(tmp_path / "data", mirror)
    wanted = RemoteFile(FILE.name, "0" * 64, FILE.shape)

    with pytest.raises(StorageFailed, match=rf"labels.gz has the SHA-256 {FILE.sha256}, not 0000"):
        folder.array("mnist", wanted)

    assert list((tmp_path / "data" / "mnist").iterdir()) == []


def test_a_file_that_no_mirror_has_fails_with_a_remedy(tmp_path: Path, mirror: str):
    folder = DataFolder(tmp_path / "data", mirror)

    with pytest.raises(StorageFailed, match=r"HTTP Error 404.*put the IDX files into .*mnist"):
        folder.array("mnist", RemoteFile("other.gz", "0" * 64, (5,)))


def test_a_mirror_that_does_not_answer_is_a_storage_error(tmp_path: Path):
    folder = DataFolder(tmp_path, "http://127.0.0.1:9")

    with pytest.raises(StorageFailed, match="can not download"):
        folder.array("mnist", FILE)


def test_a_download_that_does_not_end_is_given_up_at_the_size_that_the_file_can_have(tmp_path: Path, mirror: str):
    (tmp_path / "mirror" / "mnist" / FILE.name).write_bytes(bytes(2**20))

    with pytest.raises(StorageFailed, match="is larger than"):
        DataFolder(tmp_path / "data", mirror).array("mnist", FILE)

    assert list((tmp_path / "data" / "mnist").iterdir()) == []


def test_what_a_killed_trainer_left_half_written_is_removed_when_it_is_old(tmp_path: Path, mirror: str):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    old, young = folder / f".{FILE.name}.00000000.tmp", folder / f".{FILE.name}.11111111.tmp"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))

    DataFolder(tmp_path / "data", mirror).array("mnist", FILE)

    assert leftovers(tmp_path) == [young]  # perhaps another trainer's, which is writing it now


def test_two_trainers_that_decode_one_file_at_once_both_get_it(tmp_path: Path):
    source = tmp_path / "mnist" / FILE.name
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    together = threading.Barrier(4)

    def decode(_: int) -> np.ndarray:
        together.wait()
        return DataFolder(tmp_path, None).array("mnist", FILE)

    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(decode, range(4)))

    assert all(np.array_equal(array, LABELS) for array in arrays)
    assert leftovers(tmp_path) == []
    assert len(list((tmp_path / ".decoded" / "mnist").iterdir())) == 1


def test_a_file_is_decoded_once_and_then_mapped(tmp_path: Path):
    source = tmp_path / "mnist" / FILE.name
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    folder = DataFolder(tmp_path, "http://127.0.0.1:9")
    folder.array("mnist", FILE)
    (decoded,) = (tmp_path / ".decoded" / "mnist").iterdir()
    marked = np.array([9, 9, 9, 9, 9], dtype=np.uint8)
    np.save(decoded, marked)

    again = folder.array("mnist", FILE)

    assert np.array_equal(again, marked)


def test_a_decoded_file_that_is_damaged_is_decoded_again(tmp_path: Path):
    source = tmp_path / "mnist" / FILE.name
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    folder = DataFolder(tmp_path, "http://127.0.0.1:9")
    folder.array("mnist", FILE)
    (decoded,) = (tmp_path / ".decoded" / "mnist").iterdir()
    decoded.write_bytes(b"")

    assert np.array_equal(folder.array("mnist", FILE), LABELS)


def test_an_unzipped_file_will_do(tmp_path: Path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "labels").write_bytes(gzip.decompress(CONTENT))

    assert np.array_equal(DataFolder(tmp_path, "").array("mnist", FILE), LABELS)


def test_files_may_lie_directly_in_a_folder_that_bears_the_source_s_name(tmp_path: Path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "labels").write_bytes(gzip.decompress(CONTENT))

    assert np.array_equal(DataFolder(folder, "").array("mnist", FILE), LABELS)


def test_a_file_of_unknown_origin_is_not_taken_for_a_source_with_equal_file_names(tmp_path: Path):
    (tmp_path / "labels").write_bytes(gzip.decompress(CONTENT))

    with pytest.raises(StorageFailed):
        DataFolder(tmp_path, "http://127.0.0.1:9").array("fashion_mnist", FILE)


def test_a_damaged_file_fails_the_job_and_is_named(tmp_path: Path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / FILE.name).write_bytes(CONTENT[:-4])

    with pytest.raises(JobFailed, match=r"labels.gz: the gzip stream is damaged") as caught:
        DataFolder(tmp_path, "").array("mnist", FILE)

    assert caught.value.code == "invalid_data"
