"""The artifact store on S3, over real HTTP."""

import hashlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import object_store
from core.artifacts import ArtifactStore
from core.errors import StorageAway, StorageFailed
from tests.s3 import S3, s3_server


@pytest.fixture(scope="module")
def lasting_s3() -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as monkeypatch, s3_server(monkeypatch) as server:
        yield server


@pytest.fixture
def s3(lasting_s3: S3) -> Iterator[S3]:
    yield lasting_s3
    lasting_s3.come_back()


@pytest.fixture
def url(s3: S3) -> str:
    return f"s3://{s3.bucket()}/some/prefix"


@pytest.fixture
def store(url: str) -> Iterator[ArtifactStore]:
    store = ArtifactStore(url)
    yield store
    store.close()


def closed(store: ArtifactStore) -> Iterator[ArtifactStore]:
    yield store
    store.close()


@pytest.fixture
def caching(url: str, tmp_path: Path) -> Iterator[ArtifactStore]:
    yield from closed(ArtifactStore(url, tmp_path / "cache", 1000))


def test_what_is_put_is_got_back_by_another_node(store: ArtifactStore, caching: ArtifactStore) -> None:
    artifact = store.put("a/b.bin", b"weights")

    assert artifact.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert caching.get("a/b.bin", artifact.sha256) == b"weights"


def test_content_larger_than_one_part_arrives_whole(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "PART_BYTES", 5 * 1024**2)
    content = bytes(range(256)) * (12 * 1024**2 // 256)

    artifact = store.put("large.bin", content)

    assert store.get("large.bin", artifact.sha256) == content


@pytest.mark.parametrize("cached", [True, False])
def test_a_file_goes_up_and_comes_down_in_parts(
    store: ArtifactStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    monkeypatch.setattr(object_store, "PART_BYTES", 5 * 1024**2)
    monkeypatch.setattr("core.artifacts.PART_BYTES", 3 * 1024**2)
    content = bytes(range(256)) * (12 * 1024**2 // 256)
    (tmp_path / "large").write_bytes(content)

    artifact = store.put_file("large.bin", tmp_path / "large")

    assert (artifact.sha256, artifact.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    other = ArtifactStore(url, tmp_path / "cache", 2 * len(content) if cached else 0)
    with other.open("large.bin", artifact.sha256) as file:
        assert file.read() == content
    other.close()
    assert (tmp_path / "cache" / artifact.sha256).exists() == cached


def test_a_file_that_arrives_changed_or_is_away_is_told(
    s3: S3, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_store.ObjectStore, "write_file", lambda self, name, _: self.write(name, b"weighty"))
        with pytest.raises(StorageFailed, match=r"a\.bin is corrupt"):
            store.put_file("a.bin", tmp_path / "file")
    artifact = store.put_file("a.bin", tmp_path / "file")
    s3.go_away()

    for action in (
        lambda: store.open("a.bin", artifact.sha256),
        lambda: store.put_file("b.bin", tmp_path / "file"),
    ):
        with pytest.raises(StorageAway):
            action()


def test_names_are_those_below_the_prefix(store: ArtifactStore) -> None:
    for name in ("b/2.bin", "b/1.bin", "bc/3.bin", "a.bin"):
        store.put(name, b"x")

    assert store.names("b") == ["b/1.bin", "b/2.bin"]
    assert store.names("") == ["a.bin", "b/1.bin", "b/2.bin", "bc/3.bin"]
    assert store.names("none") == []


def test_what_another_node_wrote_is_listed_at_once(store: ArtifactStore, caching: ArtifactStore) -> None:
    assert store.names("a") == []

    caching.put("a/b.bin", b"x")

    assert store.names("a") == ["a/b.bin"]


def test_deleting_twice_is_no_error(store: ArtifactStore) -> None:
    store.put("a.bin", b"x")

    store.delete("a.bin")
    store.delete("a.bin")

    assert store.names("") == []


def test_a_changed_object_is_found_when_read(store: ArtifactStore) -> None:
    artifact = store.put("a.bin", b"weights")
    store.put("a.bin", b"weighty")

    with pytest.raises(StorageFailed, match=r"a\.bin is corrupt"):
        store.get("a.bin", artifact.sha256)


def test_an_upload_that_arrives_changed_is_found_when_written(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = object_store.ObjectStore.write
    monkeypatch.setattr(object_store.ObjectStore, "write", lambda self, name, _: write(self, name, b"weighty"))

    with pytest.raises(StorageFailed, match=r"a\.bin is corrupt"):
        store.put("a.bin", b"weights")


def test_a_missing_object_and_a_missing_bucket_are_named_with_a_remedy(s3: S3, store: ArtifactStore) -> None:
    nowhere = ArtifactStore("s3://no-such-bucket/prefix")

    with pytest.raises(StorageFailed, match=r"can not read artifact gone\.bin.*EVENKEEL_ARTIFACT_URL"):
        store.get("gone.bin", "0" * 64)
    for action in (
        lambda: nowhere.put("a.bin", b"x"),
        lambda: nowhere.get("a.bin", "0" * 64),
        lambda: nowhere.delete("a.bin"),
        lambda: nowhere.names(""),
    ):
        with pytest.raises(StorageFailed, match=r"bucket of EVENKEEL_ARTIFACT_URL exists"):
            action()
    nowhere.close()


def test_a_store_that_is_away_is_a_storage_error_with_a_remedy(s3: S3, store: ArtifactStore) -> None:
    artifact = store.put("a.bin", b"x")
    s3.go_away()

    for action in (
        lambda: store.put("b.bin", b"x"),
        lambda: store.get("a.bin", artifact.sha256),
        lambda: store.delete("a.bin"),
        lambda: store.names(""),
    ):
        with pytest.raises(StorageAway, match=r"Could not connect .*; check AWS_ENDPOINT_URL_S3"):
            action()


def test_a_store_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch, s3: S3) -> None:
    monkeypatch.setattr(object_store, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(object_store, "QUICK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{silent.getsockname()[1]}")
        store = ArtifactStore("s3://bucket/prefix")

        for action in (lambda: store.put("b.bin", b"x"), lambda: store.delete("a.bin"), lambda: store.names("")):
            with pytest.raises(StorageAway, match="check AWS_ENDPOINT_URL_S3"):
                action()
        store.close()


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Slow Down"])
def test_a_store_that_is_overloaded_is_away(s3: S3, store: ArtifactStore, status: str) -> None:
    s3.answer_first(status, times=100)

    with pytest.raises(StorageAway):
        store.put("a.bin", b"x")


def test_what_a_store_answers_is_no_absence(s3: S3, store: ArtifactStore) -> None:
    artifact = store.put("a.bin", b"x")

    for name, digest in (("a.bin", "0" * 64), ("gone.bin", artifact.sha256)):
        with pytest.raises(StorageFailed) as caught:
            store.get(name, digest)
        assert not isinstance(caught.value, StorageAway)


def test_who_may_not_read_does_not_know_what_is_there_and_who_may_not_write_does(s3: S3, store: ArtifactStore) -> None:
    s3.answer_first("403 Forbidden", times=100)

    with pytest.raises(StorageAway, match="check AWS_ACCESS_KEY_ID"):
        store.get("a.bin", "0" * 64)
    with pytest.raises(StorageFailed, match="check AWS_ACCESS_KEY_ID") as caught:
        store.put("a.bin", b"x")
    assert not isinstance(caught.value, StorageAway)


def test_a_store_that_is_busy_for_a_moment_is_asked_again(s3: S3, store: ArtifactStore) -> None:
    asked = s3.answer_first("503 Slow Down", times=1)

    store.put("a.bin", b"weights")

    assert len(asked) >= 3  # refused, written, read back


def test_without_credentials_the_remedy_names_them(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(StorageFailed, match="check AWS_ACCESS_KEY_ID"):
        store.put("a.bin", b"x")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "core.object_store")
    monkeypatch.setitem(sys.modules, "s3fs", None)

    with pytest.raises(StorageFailed, match=r"pip install 'evenkeel\[s3\]'"):
        ArtifactStore("s3://bucket/prefix")


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(StorageFailed, match="names no bucket"):
        ArtifactStore("s3://")


def test_a_copy_answers_while_the_store_is_away(s3: S3, store: ArtifactStore, caching: ArtifactStore) -> None:
    read, written = store.put("a.bin", b"read before"), caching.put("b.bin", b"written here")
    caching.get("a.bin", read.sha256)
    s3.go_away()

    assert caching.get("a.bin", read.sha256) == b"read before"
    assert caching.get("b.bin", written.sha256) == b"written here"


def test_a_corrupt_copy_is_replaced_from_the_store(caching: ArtifactStore, tmp_path: Path) -> None:
    artifact = caching.put("a.bin", b"weights")
    copy = tmp_path / "cache" / artifact.sha256
    copy.write_bytes(b"weighty")

    assert caching.get("a.bin", artifact.sha256) == b"weights"
    assert copy.read_bytes() == b"weights"


def test_a_folder_is_never_copied(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache", 1000)

    store.get("a.bin", store.put("a.bin", b"x").sha256)

    assert not (tmp_path / "cache").exists()
