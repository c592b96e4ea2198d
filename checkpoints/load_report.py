"""Compares the tensors of files with those of networks: which fit, and which do not."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from checkpoints.file_checks import is_plain


class LoadReport(NamedTuple):
    """Full names of the tensors that fit, are missing in the file, unused, or of another shape.

    added: what files of old versions lack and what changes no picture; it counts as neither loaded
        nor missing.
    """

    loaded: list[str]
    missing: list[str]
    unused: list[str]
    reshaped: list[str]
    added: Sequence[str] = ()

    @property
    def problems(self) -> list[str]:
        return [
            *self.reshaped,
            *(f"{name} is missing" for name in self.missing),
            *(f"{name} is not in the model" for name in self.unused),
        ]

    def __str__(self) -> str:
        return "; ".join([f"{len(self.loaded)} tensors loaded", *self._rest("missing")])

    def after(self, earlier: Collection[str]) -> str:
        """Describe one of several files; what none of them has is told once, by `describe_all`.

        Args:
            earlier: names of the tensors that files before this one have set.
        """
        num_replaced = len(set(self.loaded) & set(earlier))
        replaced = f", {num_replaced} in place of an earlier file's" if num_replaced else ""
        return "; ".join([f"{len(self.loaded)} tensors loaded{replaced}", *self._rest()])

    def _rest(self, *further: str) -> list[str]:
        """How many tensors did not fit, and the names of the first of them, by the reason."""
        found = {label: getattr(self, label) for label in (*further, "unused", "reshaped")}
        return [f"{len(v)} {label}: {shorten(v)}" for label, v in found.items() if v]


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


def describe_all(networks: Mapping[str, nn.Module], reports: Sequence[LoadReport]) -> str:
    """Say how many tensors of `networks` were set by several files, and name those by none."""
    names = flatten(state_dicts(networks))
    loaded = {name for report in reports for name in report.loaded}
    added = {name for report in reports for name in report.added}
    rest = [name for name in names if name not in loaded | added]
    kept = f"; {len(rest)} keep their initial values: {shorten(rest)}" if rest else ""
    return f"{len(loaded)} tensors loaded from {len(reports)} files{kept}"


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
