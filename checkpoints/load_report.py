"""Compares the tensors of a file with those of networks: which fit, and which do not."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from checkpoints.file_checks import is_plain


class LoadReport(NamedTuple):
    """Full names of the tensors that fit, are missing in the file, unused, or of another shape."""

    loaded: list[str]
    missing: list[str]
    unused: list[str]
    reshaped: list[str]

    @property
    def problems(self) -> list[str]:
        return [
            *self.reshaped,
            *(f"{name} is missing" for name in self.missing),
            *(f"{name} is not in the model" for name in self.unused),
        ]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded"]
        for label in ("missing", "unused", "reshaped"):
            names = getattr(self, label)
            if names:
                lines.append(f"{len(names)} {label}: {shorten(names)}")
        return "; ".join(lines)


def compare(networks: Mapping[str, nn.Module], states: dict[str, dict[str, Tensor]]) -> LoadReport:
    """Report which tensors of `states`, read to the CPU, fit into `networks`.

    Values that are not plain tensors count as missing.
    """
    own, given = flatten(state_dicts(networks)), flatten(states)
    given = {name: tensor for name, tensor in given.items() if is_plain(tensor)}
    same = {name for name in own.keys() & given.keys() if own[name].shape == given[name].shape}
    return LoadReport(
        loaded=[name for name in own if name in same],
        missing=[name for name in own if name not in given],
        unused=[name for name in given if name not in own],
        reshaped=[
            f"{name} is {show_shape(given[name])} in the file and {show_shape(own[name])} in the "
            "model"
            for name in own
            if name in given and name not in same
        ],
    )


def why_unfit(
    networks: Mapping[str, nn.Module], states: dict[str, dict[str, Tensor]]
) -> str | None:
    """Say why `states` cannot be loaded into all `networks`; None if they can."""
    absent, further = networks.keys() - states.keys(), states.keys() - networks.keys()
    if absent or further:
        found = [f"no {name}" for name in sorted(absent)] + sorted(further)
        return f"other networks than the config's: it has {', '.join(found)}"
    problems = compare(networks, states).problems
    return f"another architecture: {shorten(problems)}" if problems else None


def state_dicts(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    """The state dict of each network; its tensors share memory with the network."""
    return {name: network.state_dict() for name, network in networks.items()}


def flatten(networks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Put the tensors of all state dicts into one dict, by `network.name`."""
    return {
        f"{network}.{name}": tensor
        for network, state in networks.items()
        for name, tensor in state.items()
    }


def show_shape(tensor: Tensor) -> str:
    """Format a shape for people: `64 x 3 x 7 x 7`."""
    return " x ".join(map(str, tensor.shape)) or "a number"


def shorten(names: list[str], limit: int = 3) -> str:
    """Join the first of `names`, and say how many more there are."""
    rest = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
