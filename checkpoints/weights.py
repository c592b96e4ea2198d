"""From the weights of a checkpoint to networks, and to a model that can be evaluated."""

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
    """Put the weights of `states`, read from `path`, into `networks`, all of them.

    Raises:
        CheckpointError: another architecture; names the first tensors that differ.
    """
    _check_fit(networks, states, path)
    for name, network in networks.items():
        network.load_state_dict(states[name])


def check_networks(
    build: Callable[[], Mapping[str, nn.Module]], states: dict[str, dict[str, Tensor]], path: Path
) -> None:
    """Raise as `load_networks` would, before networks are built: a config may ask for more memory
    than there is. `build` makes them by name, here without memory for their weights.
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
            f"{path}: checkpoint of {reason}; use the config that it was trained with, or start a "
            "new run with --init-from"
        )


def load_model(checkpoint: Checkpoint, device: torch.device) -> Model:
    """The model with the checkpoint's best weights (its moving average, if it has one), in
    evaluation mode.

    Raises:
        CheckpointError: the config is not that of the weights.
    """
    config, states = checkpoint.config, checkpoint.evaluation_networks
    check_networks(lambda: Model(config).networks, states, checkpoint.path)
    model = Model(config)
    load_networks(model.networks, states, checkpoint.path)
    return model.eval().to(device)
