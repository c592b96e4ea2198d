"""Configs that the checks use: rows of configs/, at full or at tiny size, on puppets."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from configs.loading import load_config
from configs.schema import Config

# Puppets need no data, and speed does not depend on the weights of VGG.
SYNTHETIC: Final = ("data.kind=puppets", "data.id_sampling=false", "perceptual.weights=random")
_TINY: Final[Mapping[str, object]] = {
    "image_size": 64,
    "width": 4,
    "max_width": 8,
    "num_blocks": 2,
    "num_res_blocks": 1,
    "num_levels": 5,
    "code": 4,
}
_PICTURES = ("data.puppets.num_train_clips=8", "data.puppets.num_frames=4")


def row(name: str, tiny: bool, *further: str) -> Config:
    """The row `name` of configs/, on puppets, with `further` overrides.

    Args:
        tiny: the same parts, but small, at 64 x 64 pixels.
    """
    return load_config(name, [*overrides(name, tiny), *further])


def overrides(name: str, tiny: bool) -> list[str]:
    """The overrides that `row` makes."""
    small = []
    if tiny:
        small = [*_shrunk(load_config(name, SYNTHETIC).model_dump()), "perceptual.scales=[1, 0.5]"]
    return [*SYNTHETIC, *_PICTURES, *small]


def _shrunk(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Overrides that make the networks of a config tiny."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _shrunk(value, f"{prefix}{key}.")
        elif key == "channels" and prefix == "discriminator.":
            yield f"{prefix}{key}={[4] * len(value)}"
        elif key in _TINY and value is not None:
            yield f"{prefix}{key}={_TINY[key]}"
