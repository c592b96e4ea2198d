"""What the files of all published projects share: parts, names, and what is made of them.

A file is a dict. Its parts are the state dicts in it, by name; a tensor of a part becomes a tensor
of one of our networks, often under the same name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from checkpoints.file_checks import MAX_COUNT

State = dict[str, Tensor]
OwnName = tuple[str, str]  # of a tensor: our network, and the name in its state dict

_KERNEL = "down.weight"
_COUNTER = "num_batches_tracked"


class Place(NamedTuple):
    """Tensors of the published `part` whose names start with `head` are tensors of `network`, with
    `own_head` in place of `head`.
    """

    part: str
    head: str
    network: str
    own_head: str


class Sorted(NamedTuple):
    """The tensors of a file.

    networks: the state dict of each of our networks.
    kernels: the blur kernel of each network that has one in the file. Ours follow from the scale.
    added: full names of tensors that the file lacks and that change no output; see `sort_tensors`.
    unused: full names of tensors without a place here, as they are in the file.
    """

    networks: dict[str, State]
    kernels: State
    added: list[str]
    unused: list[str]


class Published(NamedTuple):
    """A published checkpoint, by our names.

    project: whose file it is.
    section: of the config, for the one branch that it holds.
    kind: what `motion.kind` must be; None for a branch that has one kind only.
    config: the name of a config that fits, if not to the data set.
    epoch: the last one trained; None where the file does not say.
    tensors: see `Sorted`.
    settings: what the shapes of the tensors tell of the config, by dotted key.
    subsections: whether the file holds what these sections of the config are for, by dotted key; a
        section that it does not hold must be null.
    """

    project: str
    section: str
    kind: str | None
    config: str
    epoch: int | None
    tensors: Sorted
    settings: dict[str, Any]
    subsections: dict[str, bool]


def read_parts(content: Mapping[str, Any]) -> dict[str, State]:
    """The state dicts in a file, by name; optimizers and numbers are left out."""
    return {name: part for name, part in content.items() if _is_state(part)}


def _is_state(part: Any) -> bool:
    is_full = isinstance(part, Mapping) and len(part) > 0
    return is_full and all(isinstance(tensor, Tensor) for tensor in part.values())


def read_epoch(content: Mapping[str, Any]) -> int | None:
    """The last epoch that was trained, if the file tells it."""
    epoch = content.get("epoch")
    return epoch if type(epoch) is int and 0 <= epoch < MAX_COUNT else None


def own_name(places: Sequence[Place], part: str, name: str) -> OwnName | None:
    """Our name of the tensor that is `name` in the published `part`, by the first place that fits;
    None: it has no place.
    """
    for place in places:
        if place.part == part and name.startswith(place.head):
            return place.network, place.own_head + name.removeprefix(place.head)
    return None


def sort_tensors(parts: Mapping[str, State], find: Callable[[str, str], OwnName | None]) -> Sorted:
    """Sort the tensors of all parts by our names.

    The first versions of PyTorch counted no batches in BatchNorm: counters that a file lacks are
    added as 0. Nothing that a network computes depends on them.

    Args:
        find: from part and name in the file to our name; None for a tensor without a place.
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
            # Once a lone number was a tensor of one element; torch itself still accepts those.
            is_counter = own.endswith(_COUNTER)
            networks.setdefault(network, {})[own] = tensor.squeeze() if is_counter else tensor
    added = [f"{network}.{name}" for network, name in _add_counters(networks)]
    return Sorted(networks, kernels, added, unused)


def _add_counters(networks: Mapping[str, State]) -> list[OwnName]:
    """Add the counters that BatchNorm lacks, in place; returns their names."""
    added = []
    for network, state in networks.items():
        for name in [name for name in state if name.endswith("running_mean")]:
            counter = name.removesuffix("running_mean") + _COUNTER
            if counter not in state:
                state[counter] = torch.tensor(0)
                added.append((network, counter))
    return added
