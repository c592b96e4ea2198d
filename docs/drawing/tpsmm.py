"""Figures of the motion model TPSMM: thin plates, their weights, occlusion maps."""

from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from branches.motion.tpsmm import TpsmmBranch
from datasets.source import ClipSource
from docs.drawing.canvas import (
    GRID_LINES,
    NUM_EXAMPLES,
    cells,
    draw_grid,
    mark,
    show,
    show_framed_mask,
)
from docs.drawing.motion import example_frames
from media.visualization import colorize_weights, palette, to_uint8
from modules.geometry import resize_grid, warp
from modules.keypoint_detector import Keypoints
from modules.tpsmm.dense_motion import ThinPlateMotion, candidate_motions
from modules.tpsmm.thin_plates import POINTS_PER_PLATE

NUM_PLATES = 5  # those of largest weight
SCALE = 0.75  # of a picture


class TpsmmExample(NamedTuple):
    """Frames of some test clips, B x 3 x H x W, and the outputs for them.

    candidates: B x (K+1) x h x w x 2, the background first.
    background: its affine motion, B x 3 x 3; None: it stands still.
    """

    source: Tensor
    driving: Tensor
    source_keypoints: Keypoints
    driving_keypoints: Keypoints
    background: Tensor | None
    candidates: Tensor
    motion: ThinPlateMotion


@torch.inference_mode()
def compute_tpsmm(branch: TpsmmBranch, clips: ClipSource, num_clips: int) -> TpsmmExample:
    """Run the networks on the first and the middle frame of the first test clips."""
    source, driving = example_frames(clips, num_clips)
    keypoints = branch.detect(source), branch.detect(driving)
    background = None
    if branch.background_motion is not None:
        background = branch.background_motion(source, driving)
    motion: ThinPlateMotion = branch.dense_motion(source, *keypoints, background)
    height, width = motion.deformation.shape[1:3]
    candidates = candidate_motions(*keypoints, background, height, width)
    return TpsmmExample(source, driving, *keypoints, background, candidates, motion)


@torch.inference_mode()
def draw_plates(branch: TpsmmBranch, clips: ClipSource) -> Figure:
    """Draw keypoints, motion, warped source and weight of the background and of the plates with the
    largest weights, for the first clip.
    """
    example = compute_tpsmm(branch, clips, 1)
    weights, candidates = example.motion.motion_weights[0], example.candidates[0]
    heaviest = 1 + weights[1:].mean(dim=(1, 2)).argsort(descending=True)[:NUM_PLATES]
    shown = [0, *heaviest.sort().values.tolist()]
    source = example.source.expand(len(candidates), -1, -1, -1)
    size = (source.shape[-2], source.shape[-1])
    warped = warp(source, resize_grid(candidates, size, align_corners=True))
    titles = ["background" if k == 0 else f"plate {k}" for k in shown]
    names = ("in $D$", "$T_k$ on $S$", "warped", "weight")
    figure, axes = cells(len(names), len(shown), titles, SCALE)
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name)
    for column, k in enumerate(shown):
        for row, frame in enumerate((example.driving, example.source)):
            show(axes[row][column], to_uint8(frame)[0])
        draw_grid(axes[1][column], resize_grid(candidates[k : k + 1], GRID_LINES)[0])
        if k > 0:
            for row, points in enumerate((example.driving_keypoints, example.source_keypoints)):
                mark(axes[row][column], plate_keypoints(points, k), 0)
        show(axes[2][column], to_uint8(warped[k]))
        show_framed_mask(axes[3][column], weights[k][None, None])
    return figure


def plate_keypoints(keypoints: Keypoints, plate: int) -> Keypoints:
    """The keypoints of a plate, counted from 1: B x 5 x 2."""
    first = POINTS_PER_PLATE * (plate - 1)
    return Keypoints(keypoints.value[:, first : first + POINTS_PER_PLATE], None)


@torch.inference_mode()
def draw_tpsmm(branch: TpsmmBranch, clips: ClipSource) -> Figure:
    """Draw the steps from source to prediction: keypoints in the colours of their plates, the
    plates' weights, field, warped source, every occlusion map.
    """
    example = compute_tpsmm(branch, clips, NUM_EXAMPLES)
    source, motion = example.source, example.motion
    size = (source.shape[-2], source.shape[-1])
    field = resize_grid(motion.deformation, size, align_corners=True)
    pictures = {
        "$S$": source,
        "$D$": example.driving,
        "weights": colorize_weights(motion.motion_weights, size),
        "field": source,
        "warped $S$": warp(source, field),
    }
    occlusions = {f"$o_{i}$": map_ for i, map_ in enumerate(motion.occlusion_maps)}
    titles = [*pictures, *occlusions, r"$\hat{D}$"]
    figure, axes = cells(len(source), len(titles), titles, SCALE)
    prediction = branch.inpainting(source, motion)
    for column, images in enumerate((*pictures.values(), prediction)):
        place = column if column < len(pictures) else -1
        for row, image in enumerate(to_uint8(images)):
            show(axes[row][place], image)
    for i, row in enumerate(axes):
        keypoints = (example.source_keypoints, example.driving_keypoints)
        for axis, points in zip(row, keypoints, strict=False):
            values = points.value[i]
            colors = palette(branch.num_plates, values).repeat_interleave(POINTS_PER_PLATE, dim=0)
            axis.scatter(
                *values.T, c=colors.numpy(), s=11, edgecolors="black", linewidths=0.5, zorder=3
            )
        draw_grid(row[3], resize_grid(motion.deformation[i : i + 1], GRID_LINES)[0])
        for axis, map_ in zip(row[len(pictures) :], occlusions.values(), strict=False):
            show_framed_mask(axis, map_[i : i + 1])
    return figure
