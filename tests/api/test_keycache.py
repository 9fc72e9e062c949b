import time

from api.keycache import Caller, KeyCache

CALLER = Caller("ten_1", "key_1", frozenset(("jobs:read",)))


def test_a_caller_is_remembered_for_a_short_time_only() -> None:
    cache = KeyCache(seconds=0.02)
    cache.put("ek_a_b", CALLER)
    assert cache.get("ek_a_b") == CALLER

    deadline = time.monotonic() + 5
    while cache.get("ek_a_b") is not None:
        assert time.monotonic() < deadline


def test_a_forgotten_key_is_gone_and_others_stay() -> None:
    cache = KeyCache()
    other = Caller("ten_1", "key_2", frozenset())
    cache.put("ek_a_b", CALLER)
    cache.put("ek_c_d", other)

    cache.forget("key_1")

    assert (cache.get("ek_a_b"), cache.get("ek_c_d")) == (None, other)


def test_it_never_grows_beyond_its_bound() -> None:
    cache = KeyCache()
    for number in range(5000):
        cache.put(f"ek_{number}_x", CALLER)

    assert cache.get("ek_0_x") is None
    assert cache.get("ek_4999_x") == CALLER
