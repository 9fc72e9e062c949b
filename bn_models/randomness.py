"""Stateless randomness: every draw has its own seed, derived from the job's seed and a name."""

import hashlib
import json

_MASK = 2**64 - 1


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits from SHA-256 over `parts`; other parts, another number or order of them, give another.

    Drawing from H(seed, name) instead of from one running generator means that adding or removing
    a layer, or resuming in the middle, changes no other draw.
    """
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big") >> 1


def mix(base: int, step: int) -> int:
    """H(base, step) as 63 bits: the finalizer of splitmix64, because SHA-256 would cost more than the seeding."""
    z = (base + step * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1
