"""Weights stored in float16, at half the size: rounded by the export, float32 again once read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from common.tensor_files import CheckpointError

HALF: Final = "float16"  # the entry `dtype` of the provenance of such a checkpoint
_LARGEST: Final = torch.finfo(torch.float16).max

States = Mapping[str, Mapping[str, Tensor]]


def to_half(networks: States, path: Path) -> dict[str, dict[str, Tensor]]:
    """Round the floating-point tensors of state dicts to float16; integers stay as they are.

    Args:
        path: the file that they were read from, for messages.

    Raises:
        CheckpointError: a number is not finite, or too large for float16; names its tensor.
    """
    return {
        network: {name: _rounded(t, f"{path}: {network}.{name}") for name, t in state.items()}
        for network, state in networks.items()
    }


def _rounded(tensor: Tensor, place: str) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if half.isfinite().all():
        return half
    if not tensor.isfinite().all():
        raise CheckpointError(
            f"{place} has numbers that are not finite; take an earlier checkpoint of the run"
        )
    largest = float(tensor.abs().max())
    raise CheckpointError(
        f"{place} has {largest:,.6g}, and float16 ends at {_LARGEST:,.0f}; export it without --half"
    )


def to_float32(networks: States, path: Path) -> dict[str, dict[str, Tensor]]:
    """Make float32 of the tensors of state dicts, read from `path`, that are stored in float16.

    Raises:
        CheckpointError: some of them share their numbers. A small file could then fill all memory.
    """
    halves = [t for state in networks.values() for t in state.values() if t.dtype == torch.float16]
    storages = [tensor.untyped_storage() for tensor in halves]
    held = {storage.data_ptr(): storage.nbytes() for storage in storages}
    if sum(tensor.numel() * tensor.element_size() for tensor in halves) > sum(held.values()):
        raise CheckpointError(
            f"{path}: its float16 tensors state more numbers than the file holds; use another file"
        )
    return {
        network: {
            name: tensor.float() if tensor.dtype == torch.float16 else tensor
            for name, tensor in state.items()
        }
        for network, state in networks.items()
    }
