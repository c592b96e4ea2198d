"""Figure of PriorityCut on each motion model: occlusion, background and cut mask."""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from branches.motion.branch import MotionBranch
from branches.motion.monkey_net import MonkeyNetBranch
from branches.motion.tpsmm import TpsmmBranch
from branches.motion.x2face import X2FaceBranch
from branches.outputs import MotionMaps
from datasets.source import ClipSource
from docs.drawing.canvas import cells, show, show_framed_mask
from docs.drawing.motion import example_frames
from media.visualization import to_uint8
from modules.cut_masks import (
    certain_background,
    foreground_occlusion,
    mix,
    priority_cut,
    resize_cut,
)
from modules.geometry import occlusion_from_field, stillness_of_field

SCALE = 0.61  # of a picture
NUM_CLIPS = 2  # of each model
THRESHOLD = 0.5  # of the background; the default of discriminator.cut.background_threshold
FRACTION = 0.4  # k: share of the foreground that is generated


@torch.inference_mode()
def draw_model_cuts(
    tpsmm: TpsmmBranch,
    with_head: MonkeyNetBranch,
    monkey_net: MonkeyNetBranch,
    x2face: X2FaceBranch,
    clips: ClipSource,
) -> Figure:
    """Draw the steps from the motion of each model to a cut mask and a mixed image: TPSMM,
    Monkey-Net with an occlusion head and without, and X2Face.
    """
    cut = (r"$\hat{M}_{bg}$", "$O_{fg}$", f"$M_{{pc}}$, k = {FRACTION:g}")
    titles = ("$D$", r"$\hat{D}$", "$O$", "$M_{bg}$", *cut, "mix")
    source, driving = example_frames(clips, NUM_CLIPS)
    cases = (
        ("TPSMM", tpsmm),
        ("Monkey-Net\n(a)", with_head),
        ("Monkey-Net\n(b)", monkey_net),
        ("X2Face\n(b)", x2face),
    )
    figure, axes = cells(len(cases) * len(source), len(titles), titles, SCALE)
    for i, (label, branch) in enumerate(cases):
        prediction, maps = run(branch, source, driving)
        rows = axes[len(source) * i : len(source) * (i + 1)]
        for row, columns in enumerate(zip(*steps(driving, prediction, maps), strict=True)):
            rows[row][0].set_ylabel(label, fontsize=8)
            _show_row(rows[row], columns)
    return figure


def run(branch: MotionBranch, source: Tensor, driving: Tensor) -> tuple[Tensor, MotionMaps]:
    """Predictions and motion of each source moved by its driving frame, of the same scene."""
    found = []
    for image, frame in zip(source.split(1), driving.split(1), strict=True):
        encoded, pose = branch.encode(image), branch.detect(frame)
        motion = branch.estimate_motion(encoded, pose, frame)
        found.append((branch.predict(encoded, pose, frame), motion))
    predictions, motions = zip(*found, strict=True)
    maps: list[Any] = [
        None if None in field else torch.cat(field) for field in zip(*motions, strict=True)
    ]
    return torch.cat(predictions), MotionMaps(*maps)


def steps(driving: Tensor, prediction: Tensor, maps: MotionMaps) -> list[Tensor]:
    """What leads to the mixed images, which are the last of it; a model's own maps where it has
    them, else those of its field (see `Adversary.cut`).
    """
    occlusion, weight = maps.occlusion_map, maps.background_weight
    if occlusion is None:
        occlusion = occlusion_from_field(maps.deformation)
    if weight is None:
        weight = stillness_of_field(maps.deformation)
    background = certain_background(weight, THRESHOLD)
    fraction = torch.full((len(driving),), FRACTION)
    cut_mask = priority_cut(weight, occlusion, fraction, threshold=THRESHOLD)
    large = resize_cut(cut_mask, (driving.shape[-2], driving.shape[-1]))
    visible = foreground_occlusion(background, occlusion)
    mixed = mix(large, driving, prediction)
    return [driving, prediction, occlusion, weight, background, visible, large, mixed]


def _show_row(axes: Any, pictures: tuple[Tensor, ...]) -> None:
    """Show images, 3 x H x W, and maps, 1 x h x w, side by side."""
    for axis, picture in zip(axes, pictures, strict=True):
        if len(picture) == 3:
            show(axis, to_uint8(picture))
        else:
            show_framed_mask(axis, picture[None])
