"""Checkpoints that earlier versions of this project wrote: what a reader of today must change.

format 1    The last layer of the U-Net discriminator had spectral norm.
            The colour jitter turned the hue in YIQ.
"""

from typing import Any

import torch

FORMATS = (1,)

_LAYER = "conv"  # the last of the U-Net discriminator
_NOTES = [
    "an earlier version trained it with another colour jitter, hue in YIQ; from here on it is the "
    "published one, hue in HSV"
]
_SPECTRAL_NOTE = (
    "an earlier version gave the last layer of the discriminator spectral norm; from here on it "
    "has none, as published: it goes on from the same weights, with new moments in Adam"
)


def upgrade(content: dict[str, Any]) -> list[str]:
    """Bring the content of a format 1 to the current one, in place.

    Returns:
        What changes for a run that continues from it, in sentences without a full stop.
    """
    discriminator = content["networks"].get("discriminator", {})
    is_unet = any(name.startswith("up_blocks.") for name in discriminator)
    if not is_unet or f"{_LAYER}.weight_orig" not in discriminator:
        return _NOTES
    _fold_spectral_norm(discriminator)
    if content["training"]:
        _drop_moments(content["training"]["optimizer"]["adam"])
    return [*_NOTES, _SPECTRAL_NOTE]


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
