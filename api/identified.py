"""Ids and names out of a path. What can not be one of ours is not found, whatever it holds."""

import re
from typing import Annotated

from fastapi import Depends, Header, Path

from core.errors import NotFound

ID = re.compile(r"[a-z]{2,5}_[a-z0-9]{1,34}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


async def _job_id(job_id: Annotated[str, Path(description="`job_…`")]) -> str:
    return _known(job_id, ID, "job")


async def _key_id(key_id: Annotated[str, Path(description="`key_…`")]) -> str:
    return _known(key_id, ID, "key")


async def _dataset_name(name: Annotated[str, Path(description="The data set's name")]) -> str:
    return _known(name, NAME, "data set")


async def _model_name(name: Annotated[str, Path(description="The model's name")]) -> str:
    return _known(name, NAME, "model")


async def _alias_name(alias: Annotated[str, Path(description="The alias, for instance `latest`")]) -> str:
    return _known(alias, NAME, "alias")


def missing(noun: str, text: str) -> NotFound:
    """Of another tenant's thing too: nothing tells that it exists."""
    return NotFound(f"there is no {noun} {text}: check it against the list of {noun}s")


def _known(text: str, form: re.Pattern[str], noun: str) -> str:
    if form.fullmatch(text) is None:
        if form is NAME:
            raise NotFound(f"there is no {noun} {text}: names are lower-case letters, digits, '.', '_' and '-'")
        raise missing(noun, text)
    return text


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Send a request again with the same key and body, and the same job answers",
    ),
]
JobId = Annotated[str, Depends(_job_id)]
KeyId = Annotated[str, Depends(_key_id)]
DatasetName = Annotated[str, Depends(_dataset_name)]
ModelName = Annotated[str, Depends(_model_name)]
AliasName = Annotated[str, Depends(_alias_name)]
