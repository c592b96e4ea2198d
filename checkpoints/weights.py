"""Loads the weights of a checkpoint into networks, or into a whole model for evaluation."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from branches.model import Model
from checkpoints.checkpoint import Checkpoint
from checkpoints.load_report import why_unfit
from common.tensor_files import CheckpointError


def load_networks(
    networks: Mapping[str, nn.Module], states: dict[str, dict[str, Tensor]], path: Path
) -> None:
    """Load the state dicts `states`, which were read from `path`, into all `networks`.

    Raises:
        CheckpointError: the architecture is another; names the first tensors that differ.
    """
    _check_fit(networks, states, path)
    for name, network in networks.items():
        network.load_state_dict(states[name])


def check_networks(
    build: Callable[[], Mapping[str, nn.Module]], states: dict[str, dict[str, Tensor]], path: Path
) -> None:
    """Raise CheckpointError as `load_networks` would, before the networks take memory.

    The config of an untrusted file may ask for networks larger than the memory. `build` returns
    the networks by name; it is called here on the meta device, without memory for their weights.
    """
    with torch.device("meta"):
        networks = build()
    _check_fit(networks, states, path)


def _check_fit(
    networks: Mapping[str, nn.Module], states: dict[str, dict[str, Tensor]], path: Path
) -> None:
    reason = why_unfit(networks, states)
    if reason is not None:
        raise CheckpointError(
            f"{path}: checkpoint of {reason}; use the config with which it was trained, or start a "
            "new run with --init-from"
        )


def load_model(checkpoint: Checkpoint, device: torch.device) -> Model:
    """Build the model of a checkpoint on `device`, in evaluation mode.

    Its weights are the moving average if the checkpoint has one.

    Raises:
        CheckpointError: the weights do not fit the checkpoint's config.
    """
    config, states = checkpoint.config, checkpoint.evaluation_networks
    check_networks(lambda: Model(config).networks, states, checkpoint.path)
    model = Model(config)
    load_networks(model.networks, states, checkpoint.path)
    return model.eval().to(device)
