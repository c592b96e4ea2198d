"""Reading the shipped configs: their keys, with and without bases, where two differ, small ones."""

from collections.abc import Iterator
from typing import Any

import yaml

from configs.loading import CONFIG_FOLDER, load_config
from configs.schema import Config
from tests.helpers.factories import tiny_overrides
from tests.helpers.tiny_kinds import tiny_motion

SHIPPED = sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml"))
OWN = ("demo", "demo-fomm", "puppets", "small")  # these are not rows of a paper
SETS = ("vox", "taichi", "bair")
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
SIZES = {
    *("image_size", "scale", "width", "max_width", "num_blocks", "channels", "num_res_blocks"),
    *("num_keypoints", "batch_size"),
}
# Monkey-Net's weights are of four blocks, and the tiny discriminators have two.
TWO_BLOCKS = "discriminator.generator_losses.encoder_features=[10, 1]"
COMPUTED = ("train.precision=float32", "train.channels_last=true")  # alike on any machine


def config_name(data_set: str, row: str) -> str:
    return f"{data_set}-{row}".removesuffix("-")


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every key but sections; the layers of a loss are one value."""
    for key, value in tree.items():
        if isinstance(value, dict) and not f"{prefix}{key}".endswith("losses.perceptual"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def keys(tree: dict[str, Any]) -> set[str]:
    """The dotted keys of a tree, sections left out."""
    return {key for key, value in leaves(tree)}


def read(name: str) -> dict[str, Any]:
    """The keys of a config's own file, without its bases."""
    tree: dict[str, Any] = yaml.safe_load((CONFIG_FOLDER / f"{name}.yaml").read_text())
    return tree


def resolved(name: str) -> dict[str, Any]:
    """All sections and their keys but the run folder, which follows from the config's name."""
    return load_config(name).model_dump(exclude={"run"})


def needed(name: str) -> set[str]:
    """Dotted keys of all sections that are not null, of the run folder and of puppets left out."""
    config = load_config(name).model_dump(exclude={"run": True, "data": {"puppets"}})
    return keys({section: tree for section, tree in config.items() if tree is not None})


def changed(below: dict[str, Any], above: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted keys whose values differ; the key of a section that is null in one of the two."""
    found = set()
    for key, old in below.items():
        new = above[key]
        if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
            found |= changed(old, new, f"{prefix}{key}.")
        elif old != new:
            found.add(prefix + key)
    return found


def small(name: str) -> Config:
    """A row with all its parts, but small: 32 x 32 pixels, few channels, a random VGG."""
    config = load_config(name)
    whole = config.model_dump()
    kind = "fomm" if config.motion is None else config.motion.kind
    overrides = [
        override
        for override in tiny_overrides()
        if override.split("=")[0].split(".")[-1] in SIZES or override.startswith("perceptual.")
        if whole[override.split(".")[0]] is not None  # else it would switch it on
        if kind == "fomm" or not override.startswith("motion.")
    ]
    if config.discriminator is not None and kind == "monkey_net":
        overrides.append(TWO_BLOCKS)
    return load_config(name, [*overrides, *tiny_motion(kind), *COMPUTED])
