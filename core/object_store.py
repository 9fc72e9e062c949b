"""Artifacts on S3 and all that speaks its protocol. Loaded only where the URL says s3, and in no forkserver:
the thread that s3fs does its work on would not be there in the children of a fork.

Endpoint, region and credentials come from the environment that every S3 client reads:
AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and so on, or the machine's role.
"""

import errno
from pathlib import Path

import aiohttp
import s3fs
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
from botocore.exceptions import ConnectionError as NoConnection

ATTEMPTS = 3  # of one request, for what botocore knows to be passing: 500, 503, a lost connection
TRANSFERS = 2  # of one call of s3fs, which also begins anew when a body breaks off
CONNECT_SECONDS = 5
SILENCE_SECONDS = 30
QUICK_SECONDS = 10.0  # for calls without a body: a supervisor deletes between two renewals of its lease
SLOWEST_BYTES_PER_SECOND = 1024**2
PART_BYTES = 50 * 1024**2
FAILURES: tuple[type[Exception], ...] = (OSError, BotoCoreError, ClientError, aiohttp.ClientError)
AWAY = (TimeoutError, ConnectionError, NoConnection, HTTPClientError, aiohttp.ClientError)
OVERLOADED = (errno.EBUSY, errno.EREMOTEIO)  # what s3fs makes of 503 and 500


class ObjectStore:
    """Objects below `s3://bucket/prefix`. Every call ends: within seconds, or in proportion to its bytes."""

    failures = FAILURES
    refusals: tuple[type[Exception], ...] = (PermissionError, NoCredentialsError)
    remote = True

    def __init__(self, url: str) -> None:
        self._root = url.partition("://")[2].strip("/")
        self._files = s3fs.S3FileSystem(
            skip_instance_cache=True,  # closed by its owner, not kept for whoever asks next
            use_listings_cache=False,  # other nodes write here too
            config_kwargs={
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": SILENCE_SECONDS,
                "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
            },
        )
        self._files.retries = TRANSFERS

    def write(self, name: str, content: bytes) -> None:
        """An object appears whole or not at all; parts of an upload that broke off are taken back."""
        self._files.pipe_file(self._path(name), content, chunksize=PART_BYTES, timeout=_patience(len(content)))

    def read(self, name: str) -> bytes:
        path = self._path(name)
        size = self.size(name)
        side_by_side = None if size > PART_BYTES else 1  # else s3fs would ask for the size again
        content: bytes = self._files.cat_file(path, max_concurrency=side_by_side, timeout=_patience(size))
        return content

    def write_file(self, name: str, file: Path) -> None:
        """In parts, and as `write` whole or not at all."""
        patience = _patience(file.stat().st_size)
        self._files.put_file(str(file), self._path(name), chunksize=PART_BYTES, timeout=patience)

    def size(self, name: str) -> int:
        return int(self._files.size(self._path(name), timeout=QUICK_SECONDS))

    def read_part(self, name: str, start: int, end: int) -> bytes:
        patience = _patience(end - start)
        part: bytes = self._files.cat_file(self._path(name), start=start, end=end, timeout=patience)
        return part

    def delete(self, name: str) -> None:
        self._files.rm_file(self._path(name), timeout=QUICK_SECONDS)

    def names(self, prefix: str) -> list[str]:
        found = self._files.find(self._path(prefix), timeout=SILENCE_SECONDS)
        return [path[len(self._root) + 1 :] for path in found]

    def away(self, error: Exception) -> bool:
        return isinstance(error, AWAY) or getattr(error, "errno", None) in OVERLOADED

    def remedy(self, error: Exception) -> str:
        match error:
            case FileNotFoundError():
                return "check that the bucket of EVENKEEL_ARTIFACT_URL exists and that nothing else deletes in it"
            case PermissionError() | NoCredentialsError():
                return "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what the bucket's policy allows"
            case _:
                return "check AWS_ENDPOINT_URL_S3 and that the object store answers from this machine"

    def close(self) -> None:
        """Ends its connections. A call after this opens new ones."""
        creator = getattr(self._files, "_s3creator", None)  # there after the first call; no public name
        if creator is not None:
            self._files.close_session(self._files.loop, creator)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _patience(size: int) -> float:
    return 2 * SILENCE_SECONDS + size / SLOWEST_BYTES_PER_SECOND
