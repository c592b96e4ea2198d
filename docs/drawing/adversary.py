"""Figures of the adversary: from dense motion to cut mask, and the discriminator's pixel logits."""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from checkpoints.checkpoint import Checkpoint
from checkpoints.weights import load_networks
from common.batch_random import BatchRandom
from common.errors import UserError
from docs.drawing.canvas import cells, show, show_framed_mask
from docs.drawing.motion import Example
from media.visualization import to_uint8
from modules.cut_masks import (
    certain_background,
    foreground_occlusion,
    mix,
    priority_cut,
    rectangle_cut,
    resize_cut,
)
from modules.heatmaps import keypoint_heatmaps
from training.adversary import Adversary, build_adversary

SMALL_CUT, LARGE_CUT = 0.2, 0.6  # k: shares of the foreground that are generated


def load_adversary(saved: Checkpoint) -> Adversary:
    """Load the adversary of a checkpoint, in evaluation mode.

    Raises:
        UserError: the checkpoint has no discriminator, or one that mixes no images.
    """
    discriminator = saved.config.discriminator
    if discriminator is None or discriminator.cut.kind == "none":
        found = "discriminator null" if discriminator is None else "discriminator.cut.kind none"
        raise UserError(
            f"{saved.path}: trained with {found}; the figures show a U-Net's logits of mixed "
            "images; give a checkpoint with discriminator.cut.kind priority (demo.yaml)"
        )
    adversary = build_adversary(saved.config)
    assert adversary is not None, "its section is there"
    states = {name: saved.networks[name] for name in adversary.networks}
    load_networks(adversary.networks, states, saved.path)
    return adversary.eval()


@torch.inference_mode()
def draw_cut(adversary: Adversary, example: Example) -> Figure:
    """Draw the steps from the maps of the dense motion to cut masks (PriorityCut, Figure 2), with a
    small and a large share of the foreground, and a rectangle with the area of the large one.
    """
    weight, occlusion = _maps(example)
    background = certain_background(weight, adversary.config.cut.background_threshold)
    small, large = (_priority_cut(adversary, example, k) for k in (SMALL_CUT, LARGE_CUT))
    share = (1 - large).mean(dim=(1, 2, 3))  # of the frame
    draws = BatchRandom(torch.Generator().manual_seed(0))
    rectangle = rectangle_cut(weight, occlusion, share, random=draws)
    titles = (
        *("$D$", r"$\hat{D}$", "$O$", "$M_{bg}$", r"$\hat{M}_{bg}$", "$O_{fg}$"),
        *(f"$M_{{pc}}$, k = {SMALL_CUT:g}", "mix", f"$M_{{pc}}$, k = {LARGE_CUT:g}", "mix"),
        *("rectangle", "mix"),
    )
    columns = (
        *(example.driving, example.prediction),
        *(occlusion, weight, background, foreground_occlusion(background, occlusion)),
        *(small, _mixed(example, small), large, _mixed(example, large)),
        *(rectangle, _mixed(example, rectangle)),
    )
    figure, axes = cells(len(example.driving), len(titles), titles)
    for column, pictures in zip(axes.T, columns, strict=True):
        _show_column(column, pictures)
    return figure


@torch.inference_mode()
def draw_pixel_logits(adversary: Adversary, example: Example) -> Figure:
    """Draw the decoder's logits of the real, the generated and the mixed image, and the mixed
    logits that the consistency loss asks of the last.
    """
    cut_mask = _priority_cut(adversary, example, LARGE_CUT)
    mixed = _mixed(example, cut_mask)
    cut_mask = resize_cut(cut_mask, (mixed.shape[-2], mixed.shape[-1]))
    logits = torch.stack(
        [
            _pixel_logits(adversary, example, image)
            for image in (example.driving, example.prediction, mixed)
        ]
    )
    # The three maps of a sample share a scale, since logits differ more between images than within.
    low, high = (logits.amin(dim=(0, 2, 3, 4)), logits.amax(dim=(0, 2, 3, 4)))
    low, high = (bound.view(-1, 1, 1, 1) for bound in (low, high))
    real, generated, of_mixed = (logits - low) / (high - low)
    columns = {
        "$D$": example.driving,
        "$D_{dec}(D)$": real,
        r"$\hat{D}$": example.prediction,
        r"$D_{dec}(\hat{D})$": generated,
        "mix": mixed,
        r"$D_{dec}$(mix)": of_mixed,
        "mix of $D_{dec}$": mix(cut_mask, real, generated),
        "$M_{pc}$": cut_mask,
    }
    figure, axes = cells(len(mixed), len(columns), list(columns))
    for column, pictures in zip(axes.T, columns.values(), strict=True):
        _show_column(column, pictures)
    return figure


def _maps(example: Example) -> tuple[Tensor, Tensor]:
    """The maps M_bg and O, B x 1 x h x w each."""
    occlusion = example.motion.occlusion_map
    assert occlusion is not None, "configs/rules.py requires it where images are mixed"
    return example.motion.motion_weights[:, :1], occlusion


def _priority_cut(adversary: Adversary, example: Example, share: float) -> Tensor:
    """The cut mask M_pc, B x 1 x h x w, in which `share` of the foreground is generated."""
    fraction = torch.full((len(example.driving),), share)
    threshold = adversary.config.cut.background_threshold
    return priority_cut(*_maps(example), fraction, threshold=threshold)


def _mixed(example: Example, cut_mask: Tensor) -> Tensor:
    """Driving frame and prediction, mixed by `cut_mask`, which is B x 1 x h x w."""
    driving = example.driving
    large = resize_cut(cut_mask, (driving.shape[-2], driving.shape[-1]))
    return mix(large, driving, example.prediction)


def _pixel_logits(adversary: Adversary, example: Example, image: Tensor) -> Tensor:
    """The pixel logits of `image`, B x 3 x H x W: B x 1 x H x W, high = real."""
    if adversary.config.keypoints:
        height, width = image.shape[-2:]
        heatmaps = keypoint_heatmaps(
            example.driving_keypoints, height, width, adversary.heatmap_style
        )
        image = torch.cat((image, heatmaps), dim=1)
    logits: Tensor = adversary.discriminator(image).pixel_logits
    return logits


def _show_column(axes: Any, pictures: Tensor) -> None:
    """Show a column with a picture for each sample: images, B x 3 x H x W, or maps, B x 1 x h x w,
    all in [0, 1].
    """
    for axis, picture in zip(axes, pictures, strict=True):
        if len(picture) == 3:
            show(axis, to_uint8(picture))
        else:
            show_framed_mask(axis, picture[None])
