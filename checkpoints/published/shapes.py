"""What the shapes of published tensors tell of a config. None: they tell nothing."""

from collections.abc import Mapping
from typing import Any

from checkpoints.published.layout import State
from modules.blocks import AntiAliasDownsample

_SCALES = {AntiAliasDownsample(scale).kernel.numel(): scale for scale in (0.5, 0.25, 0.125, 0.0625)}


def num_channels(state: State, name: str) -> int | None:
    """Channels of the output of a layer, by the name of its weight or bias."""
    return len(state[name]) if name in state else None


def num_blocks(state: State, head: str) -> int:
    """The number of different names after `head`, up to the next dot."""
    return len({name.removeprefix(head).split(".")[0] for name in state if name.startswith(head)})


def max_width(width: int | None, num_doublings: int, deepest: int | None) -> int | None:
    """The limit of the channels, if doubling `width` so often would give more than the `deepest`
    map has.
    """
    if width is None or deepest is None or deepest >= width * 2**num_doublings:
        return None
    return deepest


def hourglass(section: str, state: State, name: str) -> dict[str, Any]:
    """Settings of the config's `section` by the hourglass `name` of a network."""
    blocks = num_blocks(state, f"{name}.encoder.down_blocks.")
    last = f"{name}.decoder.up_blocks.{blocks - 1}.conv.weight"
    width = num_channels(state, last)
    return {
        f"{section}.num_blocks": blocks,
        f"{section}.width": width,
        **encoder_limit(section, state, f"{name}.encoder.down_blocks.", width),
    }


def encoder_limit(section: str, state: State, head: str, width: int | None) -> dict[str, Any]:
    """`max_width` of the config's `section` by an encoder, whose block i has width * 2^(i+1)
    channels as long as that is not too many.

    Args:
        head: of the names of its blocks, up to their number.
    """
    blocks = num_blocks(state, head)
    deepest = num_channels(state, f"{head}{blocks - 1}.conv.weight")
    return {f"{section}.max_width": max_width(width, blocks, deepest)}


def scales(section: str, kernels: State) -> dict[str, Any]:
    """The scale of each network by its blur kernel, which is as wide as the scale is small."""
    return {
        f"{section}.{network}.scale": _SCALES.get(kernel.shape[-1])
        for network, kernel in kernels.items()
    }


def known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the shapes tell."""
    return {key: value for key, value in settings.items() if value is not None}
