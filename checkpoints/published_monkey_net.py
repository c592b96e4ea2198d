"""Tensors of Monkey-Net's published checkpoints, by the names of our networks.

    kp_detector; generator, with dense_motion_module in it; discriminator

Unlike those of FOMM, the heads of several names differ, since our networks have the same attributes
whatever the system. Networks were published for clips, so every kernel has a third axis of size 1.
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

State = dict[str, Tensor]


class _Place(NamedTuple):
    """Tensors of the published `part` whose names start with `head` are tensors of `network`, with
    `own_head` in its place.
    """

    part: str
    head: str
    network: str
    own_head: str


# The first that fits a name counts.
_PLACES = (
    _Place("kp_detector", "predictor.decoder.conv.", "keypoint_detector", "kp."),
    _Place("kp_detector", "predictor.", "keypoint_detector", "predictor."),
    _Place(
        "generator",
        "dense_motion_module.hourglass.decoder.conv.",
        "dense_motion",
        "weights_and_correction.",
    ),
    _Place("generator", "dense_motion_module.hourglass.", "dense_motion", "hourglass."),
    _Place("generator", "dense_motion_module.group_blocks.", "dense_motion", "group_blocks."),
    _Place("generator", "appearance_encoder.", "generator", "encoder."),
    _Place("generator", "video_decoder.up_blocks.", "generator", "up_blocks."),
    _Place("generator", "refinement_module.conv-last.", "generator", "final."),
    _Place("generator", "refinement_module.", "generator", "refinement."),
    _Place("discriminator", "", "discriminator", ""),
)


class OwnNames(NamedTuple):
    """networks: the state dict of each network. unused: tensors without a place, as published."""

    networks: dict[str, State]
    unused: list[str]


def own_name(part: str, name: str) -> tuple[str, str] | None:
    """Network and name of the tensor that is `name` in the published `part`; None: no place."""
    for place in _PLACES:
        if place.part == part and name.startswith(place.head):
            return place.network, place.own_head + name.removeprefix(place.head)
    return None


def published_name(network: str, name: str) -> tuple[str, str] | None:
    """Published part and name of the tensor that is `name` in our `network`, the inverse of
    `own_name`; None where Monkey-Net has no such tensor, as for the occlusion map.
    """
    for place in _PLACES:
        if place.network == network and name.startswith(place.own_head):
            return place.part, place.head + name.removeprefix(place.own_head)
    return None


def own_tensor(tensor: Tensor) -> Tensor:
    """A kernel C' x C x 1 x h x w as C' x C x h x w; every other tensor as it is."""
    return tensor.squeeze(2) if tensor.ndim == 5 else tensor


def is_monkey_net(parts: Mapping[str, Mapping[str, Tensor]]) -> bool:
    """Whether the state dicts of a file are of Monkey-Net. FOMM's has the same parts, but no kernel
    with five axes.
    """
    return parts.keys() >= {"kp_detector", "generator"} and any(
        tensor.ndim == 5 for tensor in parts["generator"].values()
    )


def by_own_names(parts: Mapping[str, Mapping[str, Tensor]]) -> OwnNames:
    """The tensors of all published parts by network and name, kernels with four axes."""
    networks: dict[str, State] = {}
    unused = []
    for part, state in parts.items():
        for name, tensor in state.items():
            place = own_name(part, name)
            if place is None:
                unused.append(f"{part}.{name}")
                continue
            network, own = place
            networks.setdefault(network, {})[own] = own_tensor(tensor)
    return OwnNames(networks, unused)
