"""What every spec has in common: frozen, whole, and deaf to unknown fields."""

import hashlib
import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
Name = Annotated[
    str,
    Field(
        pattern=NAME.pattern,
        description="lower-case letters, digits, '.', '_' and '-'; at most 63 characters",
    ),
]
Flag = Annotated[bool, Field(strict=True)]
PositiveInt = Annotated[int, Field(strict=True, ge=1)]
Fraction = Annotated[float, Field(strict=True, ge=0.0, lt=1.0)]
LARGEST_VERSION = 2**31 - 1
NO_NUL = r"^[^\x00]*$"  # Postgres can not store it
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64, pattern=NO_NUL)]
MetadataValue = Annotated[str, Field(max_length=512, pattern=NO_NUL)]


class Spec(BaseModel):
    """A frozen value. Unknown fields are refused, so a typo in a hyperparameter is never ignored."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
        serialize_by_alias=True,
    )

    def canonical(self) -> bytes:
        """The spec as JSON with every default written out and keys sorted: equal specs, equal bytes."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """SHA-256 of `canonical()`, as 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical()).hexdigest()


class StoredFile(Spec):
    """A file in the artifact store."""

    name: str
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no white space; refuses NaN and infinity, which JSON cannot say."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
