"""Published checkpoints of X2Face, by the names of our networks.

In the file the levels of a U-Net are nested: a tensor of level i, counted from the outermost, has
`submodule` i times in its name. Ours are in two lists: `down_blocks` from the outermost level to
the innermost, and `up_blocks` back.

    pix2pixUnwrapped.netG.model.submodule.down.1.weight    embedding: unet.down_blocks.1.conv.weight
    pix2pixSampler.netG.model.up.2.weight                  driving: unet.up_blocks.7.conv.weight
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

State = dict[str, Tensor]

_NETWORKS: Final = {"pix2pixUnwrapped": "embedding", "pix2pixSampler": "driving"}
_PARTS: Final = {network: part for part, network in _NETWORKS.items()}
# Positions in a level. Those of activations and of upsampling hold no tensors: down.0 in all levels
# but the outermost, up.0 and up.1.
_LAYERS: Final = {"down.1": "conv", "down.2": "norm", "up.2": "conv", "up.3": "norm"}
_OUTERMOST: Final = {"down.0": "conv", "up.2": "conv"}
_PUBLISHED_NAME: Final = re.compile(
    r"(\w+)\.netG\.model((?:\.submodule)*)\.((?:down|up)\.\d)\.(\w+)"
)
_COUNTER: Final = "num_batches_tracked"


class PublishedX2Face(NamedTuple):
    """A published X2Face, by our names.

    networks: the state dict of `embedding` and of `driving`.
    unused: tensors without a place here, by their name in the file.
    """

    networks: dict[str, State]
    unused: list[str]


class _Place(NamedTuple):
    """Where a published tensor belongs: level from the outermost, side `down` or `up`."""

    network: str
    level: int
    side: str
    tensor: str  # conv.weight, norm.bias


def convert(content: Any) -> PublishedX2Face | None:
    """The published X2Face that was read as `content`; None if it is of no such layout.

    PyTorch 0.2 counted no batches in BatchNorm: the counters that its files lack are 0 here, and
    nothing that the networks compute depends on them.
    """
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        return None
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        return None
    places = {name: _place(name) for name in state if isinstance(name, str)}
    found = {name: place for name, place in places.items() if place is not None}
    if {place.network for place in found.values()} != _PARTS.keys():
        return None
    num_levels = {
        network: 1 + max(place.level for place in found.values() if place.network == network)
        for network in _PARTS
    }
    networks: dict[str, State] = {network: {} for network in _PARTS}
    for name, place in found.items():
        networks[place.network][_own_name(place, num_levels[place.network])] = state[name]
    for own in networks.values():
        _add_counters(own)
    return PublishedX2Face(networks, [str(name) for name in state if name not in found])


def published_name(network: str, name: str, num_levels: int) -> str:
    """The name in a published file of the tensor `name` of our `network`."""
    match = re.fullmatch(r"unet\.(down|up)_blocks\.(\d+)\.(conv|norm)\.(\w+)", name)
    assert match is not None, name
    side, index, layer, tensor = match.groups()
    level = int(index) if side == "down" else num_levels - 1 - int(index)
    layers = _LAYERS if level > 0 else _OUTERMOST
    (position,) = (p for p, found in layers.items() if found == layer and p.startswith(side))
    return f"{_PARTS[network]}.netG.model{'.submodule' * level}.{position}.{tensor}"


def _place(name: str) -> _Place | None:
    match = _PUBLISHED_NAME.fullmatch(name)
    if match is None or match[1] not in _NETWORKS:
        return None
    part, nesting, position, tensor = match.groups()
    level = nesting.count(".")
    layer = (_LAYERS if level > 0 else _OUTERMOST).get(position)
    if layer is None:
        return None
    return _Place(_NETWORKS[part], level, position.split(".")[0], f"{layer}.{tensor}")


def _own_name(place: _Place, num_levels: int) -> str:
    index = place.level if place.side == "down" else num_levels - 1 - place.level
    return f"unet.{place.side}_blocks.{index}.{place.tensor}"


def _add_counters(state: State) -> None:
    for name in [name for name in state if name.endswith(".running_mean")]:
        counter = f"{name.removesuffix('running_mean')}{_COUNTER}"
        state.setdefault(counter, torch.tensor(0))
