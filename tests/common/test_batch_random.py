"""The random numbers of a batch do not depend on its division, and have the right distribution."""

import math

import pytest
import torch
from torch.testing import assert_close

from common.batch_random import BatchRandom

KINDS = {
    "uniform": lambda draws, batch: draws.uniform(batch, 2, 3),
    "normal": lambda draws, batch: draws.normal(batch, 4),
    "poisson": lambda draws, batch: draws.poisson(20.0, batch, 1, 5, 5),
    "beta": lambda draws, batch: draws.beta(2.0, 3.0, batch),
}


def seeded(seed=0):
    return BatchRandom(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS)
def test_parts_draw_what_the_whole_would(draw):
    whole, parts = seeded(), seeded().split(3)
    first = draw(whole, 6)
    again = draw(whole, 6)  # later draws agree too
    assert len(first) == 6
    assert not torch.equal(first, again)
    for expected in (first, again):
        assert torch.equal(torch.cat([draw(part, 2) for part in parts]), expected)


def test_parts_of_parts():
    """A batch is divided among processes, then into micro-batches, in the order of its rows."""
    whole = seeded().uniform(12)
    processes = [BatchRandom(seeded().generator, part, 3) for part in range(3)]
    found = [part.uniform(2) for process in processes for part in process.split(2)]
    assert torch.equal(torch.cat(found), whole)


def test_one_part_is_the_whole():
    draws = seeded()
    assert draws.split(1) == [draws]
    assert draws.split(1)[0].generator is draws.generator


def test_the_seed_decides():
    assert torch.equal(seeded().uniform(8), seeded().uniform(8))
    assert not torch.equal(seeded().uniform(8), seeded(1).uniform(8))


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 5.0), (0.5, 0.5)])
def test_beta_distribution(a, b):
    drawn = seeded().beta(a, b, 100_000)
    assert drawn.shape == (100_000,)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    variance = a * b / ((a + b) ** 2 * (a + b + 1))
    error = math.sqrt(variance / 100_000)
    assert drawn.mean().item() == pytest.approx(a / (a + b), abs=5 * error)
    assert drawn.var().item() == pytest.approx(variance, rel=0.03)
    if a == b == 1.0:  # uniform: each tenth of the range as often
        assert_close(drawn.histc(10, 0, 1) / 100_000, torch.full((10,), 0.1), atol=5e-3, rtol=0)


def test_the_other_distributions():
    counts, normal = seeded().poisson(20.0, 1000, 64), seeded().normal(1000, 64)
    assert torch.equal(counts, counts.round())
    for values, mean, variance in ((counts, 20, 20), (normal, 0, 1)):
        error = math.sqrt(variance / values.numel())
        assert values.mean().item() == pytest.approx(mean, abs=5 * error)
        assert values.var().item() == pytest.approx(variance, rel=0.03)
    uniform = seeded().uniform(1000, 64)
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert_close(uniform.histc(10, 0, 1) / 64_000, torch.full((10,), 0.1), atol=5e-3, rtol=0)
