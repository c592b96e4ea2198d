"""Tests that seeds follow from purpose and key alone."""

from common.seeding import numpy_rng, torch_seed


def test_every_purpose_and_place_has_its_own_stream():
    keys = [("a", 0), ("b", 0), ("a", 1), ("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("a",)]
    seeds = [torch_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert len({numpy_rng(*key).random() for key in keys}) == len(keys)


def test_the_same_place_repeats():
    assert torch_seed("step", 3, 5) == torch_seed("step", 3, 5)
    assert numpy_rng("step", 3, 5).random() == numpy_rng("step", 3, 5).random()


def test_seed_fits_torch():
    assert all(0 <= torch_seed("step", step) < 2**63 for step in range(100))


def test_stored_number():
    """Data order and initial weights of old runs must not change silently."""
    assert torch_seed("weights", 0) == 5881264617513395626
