"""Sorts the tensors of published files by our networks; all projects use this module.

A file is a dict. Its parts are the state dicts in it, by name. A tensor of a part becomes a tensor
of one of our networks, often under the same name.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from checkpoints.file_checks import MAX_COUNT

State = dict[str, Tensor]
OwnName = tuple[str, str]  # our network, and the name of a tensor in its state dict

_KERNEL = "down.weight"
_COUNTER = "num_batches_tracked"


class Place(NamedTuple):
    """Tensors of one part of a published file that belong to one of our networks.

    part, head: the part of the file, and how the names of the tensors begin.
    network: the name of our network.
    own_head: what replaces `head` in our names.
    """

    part: str
    head: str
    network: str
    own_head: str


class Sorted(NamedTuple):
    """The tensors of a file, sorted by our networks.

    networks: the state dict of each of our networks.
    kernels: the blur kernel of each network for which the file has one. Ours follow from the scale.
    added: our names of counters that the file lacks and that were added; see `sort_tensors`.
    unused: names, in the file, of the tensors that no network of ours has.
    """

    networks: dict[str, State]
    kernels: State
    added: list[str]
    unused: list[str]


class Published(NamedTuple):
    """A published checkpoint under the names of our networks.

    project: the project that published the file.
    section: the config section of the one branch that the file holds.
    kind: the value that `motion.kind` must have; None for the mask branch, which has no kinds.
    configs: names of shipped configs for files of this project; see `conversion.fitting_config`.
    epoch: the last epoch of its training; None if the file does not say.
    tensors: the tensors, sorted by our networks.
    settings: values of config keys that follow from the shapes of the tensors, by dotted key.
    subsections: for sections that may be null, by dotted key: whether the file holds their network.
    """

    project: str
    section: str
    kind: str | None
    configs: tuple[str, ...]
    epoch: int | None
    tensors: Sorted
    settings: dict[str, Any]
    subsections: dict[str, bool]


def read_parts(content: Mapping[str, Any]) -> dict[str, State]:
    """Return the state dicts in a file, by name; optimizers and numbers are left out."""
    return {name: part for name, part in content.items() if _is_state(part)}


def _is_state(part: Any) -> bool:
    is_full = isinstance(part, Mapping) and len(part) > 0
    return is_full and all(isinstance(tensor, Tensor) for tensor in part.values())


def read_epoch(content: Mapping[str, Any]) -> int | None:
    """Return the last epoch of the training; None if the file has no plausible number."""
    epoch = content.get("epoch")
    return epoch if type(epoch) is int and 0 <= epoch < MAX_COUNT else None


def own_name(places: Sequence[Place], part: str, name: str) -> OwnName | None:
    """Name the tensor that is called `name` in `part` of a published file as our network does.

    The first of `places` that matches decides; None if none does.
    """
    for place in places:
        if place.part == part and name.startswith(place.head):
            return place.network, place.own_head + name.removeprefix(place.head)
    return None


def sort_by_places(parts: Mapping[str, State], places: Sequence[Place]) -> Sorted:
    """Sort the tensors of all parts by our networks, as `places` say; see `sort_tensors`."""
    return sort_tensors(parts, partial(own_name, places))


def sort_tensors(parts: Mapping[str, State], find: Callable[[str, str], OwnName | None]) -> Sorted:
    """Sort the tensors of all parts by our networks.

    BatchNorm counts its batches since PyTorch 0.4.1. Counters that an older file lacks are added as
    0; no output of a network depends on them.

    Args:
        find: returns our name for a part of the file and a name in it; None if the tensor belongs
            to no network of ours.
    """
    networks: dict[str, State] = {}
    kernels: State = {}
    unused = []
    for part, state in parts.items():
        for name, tensor in state.items():
            place = find(part, name)
            if place is None:
                unused.append(f"{part}.{name}")
                continue
            network, own = place
            if own == _KERNEL:
                kernels[network] = tensor
                continue
            # Early versions of torch stored a number as a tensor of one element, not as a scalar.
            is_counter = own.endswith(_COUNTER)
            networks.setdefault(network, {})[own] = tensor.squeeze() if is_counter else tensor
    added = [f"{network}.{name}" for network, name in _add_counters(networks)]
    return Sorted(networks, kernels, added, unused)


def _add_counters(networks: Mapping[str, State]) -> list[OwnName]:
    """Add the counters that BatchNorm layers lack, in place; return their names."""
    added = []
    for network, state in networks.items():
        for name in [name for name in state if name.endswith("running_mean")]:
            counter = name.removesuffix("running_mean") + _COUNTER
            if counter not in state:
                state[counter] = torch.tensor(0)
                added.append((network, counter))
    return added
