"""Checkpoints that earlier versions of this project wrote: what a reader of today must change.

format 1    The last layer of the U-Net discriminator had spectral norm.
            The colour jitter turned the hue in YIQ, CutMix drew other rectangles, and no step
            was clipped by the median of earlier ones.
"""

from typing import Any

import torch

FORMATS = (1,)

_LAYER = "conv"  # the last of the U-Net discriminator
_JITTER_NOTE = (
    "an earlier version trained it with another colour jitter, hue in YIQ; from here on it is the "
    "published one, hue in HSV"
)
_CUT_NOTE = (
    "an earlier version drew the rectangles of CutMix wholly inside the image; from here on their "
    "centres are uniform and they are clipped, as published"
)
_SPECTRAL_NOTE = (
    "an earlier version gave the last layer of the discriminator spectral norm; from here on it "
    "has none, as published: it goes on from the same weights, with new moments in Adam"
)


def upgrade(content: dict[str, Any]) -> list[str]:
    """Bring the content of a format 1 to the current one, in place.

    Returns:
        What changes for a run that continues from it, in sentences without a full stop.
    """
    config = content["config"]
    config.setdefault("train", {}).setdefault("clip_ratio", None)  # it goes on as it was
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
    """Replace the layer's weight by what spectral norm made of it: divided by its estimate of the
    largest singular value, u^T W v. So the network judges as it did.
    """
    weight, u, v = (discriminator.pop(f"{_LAYER}.weight_{part}") for part in ("orig", "u", "v"))
    sigma = torch.dot(u, torch.mv(weight.flatten(1), v))
    discriminator[f"{_LAYER}.weight"] = weight / sigma


def _drop_moments(adam: dict[str, Any]) -> None:
    """Adam numbers its parameters. With spectral norm the layer's bias came before its weight,
    without it comes last; the moments of the weight as it was say little of it as it is.
    """
    group = next(group for group in adam["param_groups"] if group["name"] == "discriminator")
    *_, first, last = group["params"]
    bias = adam["state"].pop(first, None)
    adam["state"].pop(last, None)
    if bias is not None:
        adam["state"][last] = bias
