"""Derives values of config keys from the shapes of published tensors.

A value is None if it does not follow from the shapes.
"""

from collections.abc import Mapping
from typing import Any

from checkpoints.published.layout import State
from modules.blocks import AntiAliasDownsample

_SCALES = {AntiAliasDownsample(scale).kernel.numel(): scale for scale in (0.5, 0.25, 0.125, 0.0625)}


def num_channels(state: State, name: str) -> int | None:
    """Number of output channels of the layer with the weight or bias `name`."""
    return len(state[name]) if name in state else None


def num_blocks(state: State, head: str) -> int:
    """Count the blocks whose tensors have names that begin with `head`.

    The names go on with the name of the block, up to the next dot.
    """
    return len({name.removeprefix(head).split(".")[0] for name in state if name.startswith(head)})


def max_width(width: int | None, num_doublings: int, deepest: int | None) -> int | None:
    """Derive the limit of the channels of an encoder.

    Args:
        width: channels at full size, which double `num_doublings` times.
        deepest: channels of the deepest map. If doubling alone would give no more than these, no
            map has reached the limit, and it does not follow.
    """
    if width is None or deepest is None or deepest >= width * 2**num_doublings:
        return None
    return deepest


def hourglass(section: str, state: State, name: str) -> dict[str, Any]:
    """Derive the keys of the config's `section` from the hourglass called `name` in `state`."""
    blocks = num_blocks(state, f"{name}.encoder.down_blocks.")
    last = f"{name}.decoder.up_blocks.{blocks - 1}.conv.weight"
    width = num_channels(state, last)
    return {
        f"{section}.num_blocks": blocks,
        f"{section}.width": width,
        **encoder_limit(section, state, f"{name}.encoder.down_blocks.", width),
    }


def encoder_limit(section: str, state: State, head: str, width: int | None) -> dict[str, Any]:
    """Derive `max_width` of the config's `section` from an encoder.

    Block i of the encoder has min(max_width, width * 2^(i+1)) channels.

    Args:
        head: how the names of the encoder's blocks begin, up to the number of the block.
    """
    blocks = num_blocks(state, head)
    deepest = num_channels(state, f"{head}{blocks - 1}.conv.weight")
    return {f"{section}.max_width": max_width(width, blocks, deepest)}


def scales(section: str, kernels: State) -> dict[str, Any]:
    """Derive scales of networks, by config key: the smaller the scale, the wider the kernel."""
    return {
        f"{section}.{network}.scale": _SCALES.get(kernel.shape[-1])
        for network, kernel in kernels.items()
    }


def known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the settings that do not follow from the shapes."""
    return {key: value for key, value in settings.items() if value is not None}
