"""Derives every random number from the run's seed, a purpose and a position in the run."""

import zlib

import numpy as np


def sequence(purpose: str, *key: int) -> np.random.SeedSequence:
    """Return a seed for `purpose` at `key`, such as (seed, epoch, index).

    Two purposes never share a stream of numbers. The length of the key is part of the seed, because
    NumPy treats (1, 2) and (1, 2, 0) as the same.
    """
    return np.random.SeedSequence((zlib.crc32(purpose.encode()), len(key), *key))


def numpy_rng(purpose: str, *key: int) -> np.random.Generator:
    """Return a NumPy generator for `purpose` at `key`."""
    return np.random.default_rng(sequence(purpose, *key))


def torch_seed(purpose: str, *key: int) -> int:
    """Return a seed for `torch.Generator.manual_seed`, which needs no sync on any device."""
    return int(sequence(purpose, *key).generate_state(1, np.uint64)[0] >> np.uint64(1))
