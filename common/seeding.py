"""Every random number follows from the run's seed, a purpose and a place in the run."""

import zlib

import numpy as np


def sequence(purpose: str, *key: int) -> np.random.SeedSequence:
    """A seed for `purpose` at `key`, such as (seed, epoch, index). Purposes never share a stream.

    The length of the key goes in too: NumPy takes (1, 2) and (1, 2, 0) for the same seed.
    """
    return np.random.SeedSequence((zlib.crc32(purpose.encode()), len(key), *key))


def numpy_rng(purpose: str, *key: int) -> np.random.Generator:
    """A NumPy generator for `purpose` at `key`."""
    return np.random.default_rng(sequence(purpose, *key))


def torch_seed(purpose: str, *key: int) -> int:
    """A seed for `torch.Generator.manual_seed`, which works without a sync on any device."""
    return int(sequence(purpose, *key).generate_state(1, np.uint64)[0] >> np.uint64(1))
