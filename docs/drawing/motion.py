"""Figures of the motion branch: outputs of its networks for the first clips of the test split."""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from animation.branch_animators import MotionAnimator, animate, frames_to_tensor
from branches.motion.fomm import FommBranch
from common.batch_random import BatchRandom
from configs.schema import Config
from datasets.source import ClipSource
from docs.drawing.canvas import DEVICE, NUM_EXAMPLES, cells, draw_grid, mark, show
from evaluation.reconstruction import spread
from media.visualization import colorize_weights, to_uint8
from modules.blocks import AntiAliasDownsample
from modules.dense_motion import DenseMotion, sparse_motions
from modules.geometry import coordinate_grid, resize_grid, warp, warp_by_candidates
from modules.heatmaps import candidate_heatmaps
from modules.keypoint_detector import Keypoints
from modules.thin_plate import random_thin_plate

NUM_SOURCES, NUM_MOMENTS = 6, 4  # columns and rows of the teaser
NUM_CANDIDATES = 6  # keypoints that the figure of the dense motion shows


class Example(NamedTuple):
    """Source and driving frame of some test clips, B x 3 x H x W, and the outputs of the motion
    branch for them.
    """

    source: Tensor
    driving: Tensor
    source_keypoints: Keypoints
    driving_keypoints: Keypoints
    motion: DenseMotion
    prediction: Tensor


def example_frames(clips: ClipSource, num_clips: int) -> tuple[Tensor, Tensor]:
    """The first and the middle frame of the first clips, B x 3 x H x W each."""
    frames = [
        clips.read(i, [0, clips.num_frames(i) // 2])
        for i in range(min(num_clips, len(clips.clips)))
    ]
    source, driving = (np.stack(side) for side in zip(*frames, strict=True))
    return frames_to_tensor(source, DEVICE), frames_to_tensor(driving, DEVICE)


@torch.inference_mode()
def compute_example(motion: FommBranch, clips: ClipSource) -> Example:
    """Run the motion branch on the first and the middle frame of the first test clips."""
    source, driving = example_frames(clips, NUM_EXAMPLES)
    source_keypoints = motion.keypoint_detector(source)
    driving_keypoints = motion.keypoint_detector(driving)
    dense = motion.dense_motion(source, source_keypoints, driving_keypoints)
    prediction = motion.generator(source, dense).prediction
    return Example(source, driving, source_keypoints, driving_keypoints, dense, prediction)


def draw_teaser(motion: FommBranch, clips: ClipSource) -> Figure:
    """Draw the first test clip driving the first frames of the next clips, in a column for each."""
    animator = MotionAnimator(motion, DEVICE)
    count = min(NUM_SOURCES, len(clips.clips) - 1)
    moments = spread(clips.num_frames(0), NUM_MOMENTS + 1)
    driving = clips.read(0, moments)
    figure, axes = cells(len(moments), count + 1)
    axes[0][0].axis("off")
    for row, frame in enumerate(driving[1:], start=1):
        show(axes[row][0], frame)
    for column in range(1, count + 1):
        source = clips.read(column, [0])[0]
        show(axes[0][column], source)
        # The first driving frame is only the reference of relative motion; its result is not shown.
        predictions = np.concatenate([to_uint8(p) for _, p in animate(animator, source, driving)])
        for row, frame in enumerate(predictions[1:], start=1):
            show(axes[row][column], frame)
    axes[0][0].text(1, 0.5, "source ", ha="right", va="center", transform=axes[0][0].transAxes)
    axes[0][0].text(0.5, 0, "driving", ha="center", va="bottom", transform=axes[0][0].transAxes)
    return figure


def draw_keypoints(example: Example) -> Figure:
    """Draw keypoints and the columns of their Jacobians on source and driving frames."""
    figure, axes = cells(2, len(example.source), scale=1.6)
    rows = (
        ("source", example.source, example.source_keypoints),
        ("driving", example.driving, example.driving_keypoints),
    )
    for row, (name, frames, keypoints) in enumerate(rows):
        axes[row][0].set_ylabel(name)
        for i, frame in enumerate(to_uint8(frames)):
            show(axes[row][i], frame)
            mark(axes[row][i], keypoints, i)
    return figure


@torch.inference_mode()
def draw_thin_plate(motion: FommBranch, example: Example) -> Figure:
    """Draw driving frames with the points where the transform T samples them, the transformed
    frames, and the keypoints that T maps back.
    """
    transform = random_thin_plate(
        len(example.driving),
        motion.transform.affine_std,
        motion.transform.thin_plate_std,
        motion.transform.grid_size,
        BatchRandom(torch.Generator().manual_seed(0)),
    )
    transformed = transform.frame(example.driving)
    keypoints = motion.keypoint_detector(transformed)
    mapped = transform.points(keypoints.value)
    lines = coordinate_grid(9, 9, example.driving)
    sampled = transform.points(lines.reshape(1, -1, 2).expand(len(mapped), -1, -1))
    titles = ("D and T(grid)", "D at T(grid), $p_T$", "$p_D$ and T($p_T$)")
    figure, axes = cells(len(mapped), 3, titles, scale=1.6)
    frames = zip(to_uint8(example.driving), to_uint8(transformed), strict=True)
    for i, (before, after) in enumerate(frames):
        show(axes[i][0], before)
        draw_grid(axes[i][0], sampled[i].view(9, 9, 2))
        show(axes[i][1], after)
        draw_grid(axes[i][1], lines)
        mark(axes[i][1], keypoints, i, jacobian=False)
        show(axes[i][2], before)
        mark(axes[i][2], example.driving_keypoints, i, jacobian=False)
        axes[i][2].plot(*mapped[i].T, "+", color="black", markersize=10, mew=2.2, zorder=4)
        axes[i][2].plot(*mapped[i].T, "+", color="white", markersize=9, mew=1.1, zorder=5)
    return figure


@torch.inference_mode()
def draw_candidates(motion: FommBranch, example: Example) -> Figure:
    """Draw heatmap, warped source and weight of the background and of the keypoints with the
    largest weights.
    """
    dense, one = motion.dense_motion, slice(0, 1)
    source = dense.down(example.source[one])
    height, width = source.shape[-2:]
    source_kp, driving_kp = (
        Keypoints(k.value[one], None if k.jacobian is None else k.jacobian[one])
        for k in (example.source_keypoints, example.driving_keypoints)
    )
    candidates = sparse_motions(source_kp, driving_kp, height, width)
    warped = warp_by_candidates(source, candidates)[0]
    heatmaps = candidate_heatmaps(source_kp, driving_kp, height, width, dense.heatmap_style)[0]
    weights = example.motion.motion_weights[0]
    heaviest = 1 + weights[1:].mean(dim=(1, 2)).argsort(descending=True)[:NUM_CANDIDATES]
    shown = [0, *heaviest.sort().values.tolist()]
    titles = ["background" if k == 0 else f"keypoint {k}" for k in shown]
    figure, axes = cells(3, len(shown), titles)
    names = ("heatmaps", "warped", "weight")
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name)
    for column, k in enumerate(shown):
        show(axes[0][column], heatmaps[k].numpy(), cmap="coolwarm", vmin=-1, vmax=1)
        show(axes[1][column], to_uint8(warped[k]))
        show(axes[2][column], weights[k].numpy(), cmap="gray", vmin=0, vmax=1)
    return figure


@torch.inference_mode()
def draw_generator(example: Example) -> Figure:
    """Draw the steps from source to prediction: motion weights, deformation, warp, occlusion."""
    height, width = example.source.shape[-2:]
    motion = example.motion
    columns = {
        "source": example.source,
        "driving": example.driving,
        "motion weights": colorize_weights(motion.motion_weights, (height, width)),
        "deformation": example.source,
        "warped source": warp(example.source, resize_grid(motion.deformation, (height, width))),
    }
    if motion.occlusion_map is not None:
        columns["occlusion map"] = motion.occlusion_map.expand(-1, 3, -1, -1)
    columns["prediction"] = example.prediction
    figure, axes = cells(len(example.source), len(columns), list(columns))
    for column, (title, images) in enumerate(columns.items()):
        for row, image in enumerate(to_uint8(images)):
            show(axes[row][column], image)
            if title == "deformation":
                field = resize_grid(motion.deformation[row : row + 1], (13, 13))[0]
                draw_grid(axes[row][column], field)
    return figure


@torch.inference_mode()
def draw_pyramid(config: Config, example: Example) -> Figure:
    """Draw a driving frame at every scale of the perceptual loss, without interpolation."""
    scales = config.perceptual.scales
    images = [to_uint8(AntiAliasDownsample(scale)(example.driving[:1]))[0] for scale in scales]
    titles = [
        f"scale {scale:g}: {image.shape[1]} x {image.shape[0]}"
        for scale, image in zip(scales, images, strict=True)
    ]
    figure, axes = cells(1, len(scales), titles, scale=1.6)
    for axis, image in zip(axes[0], images, strict=True):
        show(axis, image, interpolation="nearest")
    return figure
