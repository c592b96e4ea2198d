"""Converts the published checkpoints of X2Face to the names of our networks.

A file has one part, `state_dict`, which contains both networks. In it the levels of a U-Net are
nested: the name of a tensor of level i, where level 0 is the outermost, has `submodule` i times.
Our U-Nets have two lists: `down_blocks` from the outermost level to the innermost, and `up_blocks`
back to the outermost. For a network of 8 levels:

    published                                               ours
    pix2pixUnwrapped.netG.model.submodule.down.1.weight     embedding.unet.down_blocks.1.conv.weight
    pix2pixSampler.netG.model.up.2.weight                   driving.unet.up_blocks.7.conv.weight
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from checkpoints.published.layout import (
    OwnName,
    Published,
    State,
    read_epoch,
    read_parts,
    sort_tensors,
)
from checkpoints.published.shapes import known, max_width, num_blocks, num_channels

PROJECT: Final = "X2Face"
PART: Final = "state_dict"
NETWORKS: Final = {"pix2pixUnwrapped": "embedding", "pix2pixSampler": "driving"}
# The layer at each position of a level. Activations and upsampling have positions without tensors:
# up.0, up.1, and down.0 in every level but the outermost.
LAYERS: Final = {"down.1": "conv", "down.2": "norm", "up.2": "conv", "up.3": "norm"}
OUTERMOST: Final = {"down.0": "conv", "up.2": "conv"}
_PUBLISHED_NAME: Final = re.compile(
    r"(\w+)\.netG\.model((?:\.submodule)*)\.((?:down|up)\.\d)\.(\w+)"
)


class _Place(NamedTuple):
    """The place of a tensor in one of our networks.

    level: counted from the outermost, 0.
    side: `down` or `up`.
    tensor: the name within the block, such as `conv.weight`.
    """

    network: str
    level: int
    side: str
    tensor: str


def read(content: Mapping[str, Any]) -> Published | None:
    """Convert the content of a file of X2Face; None if it does not hold both of its networks."""
    state = read_parts(content).get(PART, {})
    num_levels = _num_levels(state)
    if num_levels.keys() != {*NETWORKS.values()}:
        return None

    def find(part: str, name: str) -> OwnName | None:
        place = _place(name)
        return None if place is None else _own_name(place, num_levels[place.network])

    tensors = sort_tensors({PART: state}, find)
    settings = {
        key: value
        for network, own in tensors.networks.items()
        for key, value in _settings(f"motion.{network}", own).items()
    }
    return Published(
        project=PROJECT,
        section="motion",
        kind="x2face",
        configs=("vox-x2face.yaml",),
        epoch=read_epoch(content),
        tensors=tensors,
        settings=settings,
        subsections={},
    )


def _num_levels(names: Iterable[str]) -> dict[str, int]:
    """Count the levels of each of our networks that has tensors among the published `names`."""
    num_levels: dict[str, int] = {}
    for name in names:
        place = _place(name)
        if place is not None:
            most = max(num_levels.get(place.network, 0), place.level + 1)
            num_levels[place.network] = most
    return num_levels


def _place(name: str) -> _Place | None:
    """Find the place of the tensor with a published name; None if it has none."""
    match = _PUBLISHED_NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or match[1] not in NETWORKS:
        return None
    part, nesting, position, tensor = match.groups()
    level = nesting.count(".")
    layer = (LAYERS if level > 0 else OUTERMOST).get(position)
    if layer is None:
        return None
    return _Place(NETWORKS[part], level, position.split(".")[0], f"{layer}.{tensor}")


def _own_name(place: _Place, num_levels: int) -> OwnName:
    """Name a tensor of a network with `num_levels` levels as ours does."""
    index = place.level if place.side == "down" else num_levels - 1 - place.level
    return place.network, f"unet.{place.side}_blocks.{index}.{place.tensor}"


def _settings(section: str, state: State) -> dict[str, Any]:
    """Derive values of config keys in `section`, by dotted key, from the shapes of one network."""
    levels = num_blocks(state, "unet.down_blocks.")
    channels = [
        num_channels(state, f"unet.down_blocks.{level}.conv.weight") for level in range(levels)
    ]
    # The innermost map does not follow the widths of the others: its channels are the code.
    *widths, code = channels or [None]
    width = widths[0] if widths else None
    deepest = widths[-1] if widths else None
    return known(
        {
            f"{section}.width": width,
            f"{section}.max_width": max_width(width, len(widths) - 1, deepest),
            f"{section}.num_levels": levels,
            f"{section}.code": code,
        }
    )
