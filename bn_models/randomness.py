"""Stateless randomness: every draw has its own seed, derived from the job's seed and a name."""

import hashlib
import json


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits from SHA-256 over `parts`; other parts, another number or order of them, give another.

    Drawing from H(seed, name) instead of from one running generator means that adding or removing
    a layer, or resuming in the middle, changes no other draw.
    """
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big") >> 1
