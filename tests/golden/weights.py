"""The value of every tensor of the published networks in these files, from its name and shape.

Both sides of a comparison fill their networks by this rule, so that a file needs names and shapes,
inputs and outputs only.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor of a state dict; `name` is the published one, without that of its part."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_var":
        return (1.0 + 0.2 * rng.random(shape)).astype(np.float32)
    if leaf == "running_mean":
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) >= 2:
        fan_in = int(np.prod(shape[1:]))
        gain = 0.3 if "jacobian" in name else 1.4
        return (gain / np.sqrt(fan_in) * rng.standard_normal(shape)).astype(np.float32)
    if leaf == "bias" and "jacobian" in name:
        eye = np.tile(np.array([1, 0, 0, 1], np.float32), shape[0] // 4)
        return (eye + 0.05 * rng.standard_normal(shape)).astype(np.float32)
    if leaf == "bias":
        return (0.05 * rng.standard_normal(shape)).astype(np.float32)
    return (1.0 + 0.1 * rng.standard_normal(shape)).astype(np.float32)


def state_dict(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Every tensor of `shapes`, by its name."""
    return {name: torch.from_numpy(fill(name, tuple(shape))) for name, shape in shapes.items()}
