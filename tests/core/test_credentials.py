import re

import pytest

from core.credentials import matches, mint, split


def test_a_minted_key_splits_into_its_id_and_a_secret_that_matches() -> None:
    key = mint()

    parts = split(key.text)

    assert parts is not None
    assert parts[0] == key.id
    assert matches(parts[1], key.secret_sha256)
    assert not matches(parts[1][:-1], key.secret_sha256)


def test_the_text_holds_256_random_bits_and_the_digest_does_not_show_them() -> None:
    keys = [mint() for _ in range(20)]

    assert len({key.text for key in keys}) == 20
    assert all(re.fullmatch(r"ek_[0-9a-z]{26}_[0-9a-f]{64}", key.text) for key in keys)
    assert all(key.text.split("_")[2] != key.secret_sha256 for key in keys)


@pytest.mark.parametrize("text", ["", "ek", "ek_a", "ek_a_", "ek__b", "xx_a_b", "ek_a_b_c", "ek_a b_c", "ek_a_b\0"])
def test_what_can_not_be_a_key_is_none(text: str) -> None:
    assert split(text) is None
