"""Arrays out of safetensors bytes, without a copy of those that are not asked for, and without torch.

The format: 8 bytes with the length of a JSON header, the header, then the bytes of all tensors.
"""

import json
import struct
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import StorageFailed

DTYPES: dict[str, Any] = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "I64": np.dtype("<i8")}


class Tensors:
    """Raises StorageFailed for bytes that are no safetensors file."""

    def __init__(self, content: bytes) -> None:
        try:
            (size,) = struct.unpack_from("<Q", content)
            self._header: dict[str, Any] = json.loads(content[8 : 8 + size])
        except (struct.error, ValueError) as error:
            raise StorageFailed(f"the file of tensors can not be read: {error}") from error
        self._content, self._start = content, 8 + size

    def __contains__(self, name: str) -> bool:
        return name in self._header

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            entry = self._header[name]
            offset = self._start + entry["data_offsets"][0]
            values: NDArray[Any] = np.frombuffer(self._content, DTYPES[entry["dtype"]], prod(entry["shape"]), offset)
        except (KeyError, ValueError) as error:
            raise StorageFailed(f"the file of tensors has no {name} that can be read: {error!r}") from error
        return values.reshape(entry["shape"])

    def listed(self, name: str) -> list[Any] | None:
        """As (nested) lists of numbers; None when there is no such tensor."""
        if name not in self:
            return None
        values: list[Any] = self[name].tolist()
        return values
