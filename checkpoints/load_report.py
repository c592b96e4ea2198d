"""Which tensors of a file fit into networks, and which do not."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from checkpoints.file_checks import is_plain


class LoadReport(NamedTuple):
    """Full tensor names: what was or can be loaded, what is missing, unused, of another shape."""

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
    """Which tensors of `states`, read to the CPU, fit into `networks`. What is no plain tensor is
    missing.
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
    """What is wrong with `states` as those of all `networks`; None if nothing is."""
    absent, further = networks.keys() - states.keys(), states.keys() - networks.keys()
    if absent or further:
        found = [f"no {name}" for name in sorted(absent)] + sorted(further)
        return f"other networks than the config's: it has {', '.join(found)}"
    problems = compare(networks, states).problems
    return f"another architecture: {shorten(problems)}" if problems else None


def state_dicts(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    """Of each network, sharing memory with it."""
    return {name: network.state_dict() for name, network in networks.items()}


def flatten(networks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of all state dicts by `network.name`."""
    return {
        f"{network}.{name}": tensor
        for network, state in networks.items()
        for name, tensor in state.items()
    }


def show_shape(tensor: Tensor) -> str:
    """As people write it: 64 x 3 x 7 x 7."""
    return " x ".join(map(str, tensor.shape)) or "a number"


def shorten(names: list[str], limit: int = 3) -> str:
    """The first of `names`, and how many more there are."""
    rest = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
