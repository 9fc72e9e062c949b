from itertools import combinations

from bn_models.randomness import derive_seed


def test_a_seed_depends_on_parts_their_order_and_their_kind():
    parts = [(0,), ("0",), (0, 0), (0, "a"), ("a", 0), ("a0",), (1, "a"), (0, "a", "b"), (0, "ab"), (0, "a\x1fb")]

    assert all(derive_seed(*one) != derive_seed(*other) for one, other in combinations(parts, 2))


def test_a_seed_is_the_same_in_every_process_and_fits_63_bits():
    assert derive_seed(0, "hidden1.linear.weight") == 8907261136858352529
    assert all(0 <= derive_seed(number) < 2**63 for number in range(200))
