"""Upgrades checkpoints that earlier versions of this project wrote.

format 1    The last layer of the U-Net discriminator had spectral norm.
            The colour jitter turned the hue in YIQ, CutMix drew other rectangles, and gradients
            were not clipped by the median norm of earlier steps.
"""

from typing import Any

import torch

FORMATS = (1,)

_LAYER = "conv"  # the last layer of the U-Net discriminator
_JITTER_NOTE = (
    "an earlier version trained it with another colour jitter, which turned the hue in YIQ; from "
    "here on it is the published one, with the hue in HSV"
)
_CUT_NOTE = (
    "an earlier version drew the rectangles of CutMix wholly inside the image; from here on their "
    "centres are uniform and they are clipped, as published"
)
_SPECTRAL_NOTE = (
    "an earlier version gave the last layer of the discriminator spectral norm; from here on it "
    "has none, as published: it continues from the same weights, with new moments in Adam"
)


def upgrade(content: dict[str, Any]) -> list[str]:
    """Upgrade the content of a checkpoint of format 1 to the current format, in place.

    Returns:
        Notes on what changes for a run that continues from it, as sentences without a full stop.
    """
    config = content["config"]
    config.setdefault("train", {}).setdefault("clip_ratio", None)  # such runs did not clip by it
    notes = []
    strengths = config.get("data", {}).get("augmentation", {})
    if any(strengths.get(name, 0.1) for name in ("brightness", "contrast", "saturation", "hue")):
        notes.append(_JITTER_NOTE)
    settings = config.get("discriminator") or {}
    if settings.get("cut", {}).get("kind") == "rectangle":
        notes.append(_CUT_NOTE)
    discriminator = content["networks"].get("discriminator", {})
    is_unet = any(name.startswith("up_blocks.") for name in discriminator)
    if not is_unet or f"{_LAYER}.weight_orig" not in discriminator:
        return notes
    _fold_spectral_norm(discriminator)
    if content["training"]:
        _drop_moments(content["training"]["optimizer"]["adam"])
    return [*notes, _SPECTRAL_NOTE]


def _fold_spectral_norm(discriminator: dict[str, Any]) -> None:
    """Replace the layer's weight by the one that spectral norm computed from it.

    That is the weight divided by the estimate u^T W v of its largest singular value. So the
    outputs of the network stay the same.
    """
    weight, u, v = (discriminator.pop(f"{_LAYER}.weight_{part}") for part in ("orig", "u", "v"))
    sigma = torch.dot(u, torch.mv(weight.flatten(1), v))
    discriminator[f"{_LAYER}.weight"] = weight / sigma


def _drop_moments(adam: dict[str, Any]) -> None:
    """Drop Adam's moments of the layer's weight, and renumber those of its bias.

    Adam numbers its parameters. With spectral norm the bias came before the weight; without it the
    bias comes last. The moments of the earlier weight are no use for the folded one.
    """
    group = next(group for group in adam["param_groups"] if group["name"] == "discriminator")
    *_, first, last = group["params"]
    bias = adam["state"].pop(first, None)
    adam["state"].pop(last, None)
    if bias is not None:
        adam["state"][last] = bias
