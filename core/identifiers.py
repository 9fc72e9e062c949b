"""Ids: a prefix that tells the type at sight and a ULID, so that they sort by time and can not be guessed."""

from typing import Literal

from ulid import ULID

Prefix = Literal["job", "ckpt", "mdl", "ds", "key", "ten", "node", "req"]


def new_id(prefix: Prefix) -> str:
    """For instance `job_01jd3v6k5x8f0zq4c1m2n3p4r5`; 31 characters at most."""
    return f"{prefix}_{str(ULID()).lower()}"
