"""Figure of the motion model Monkey-Net: keypoints with a covariance, shifts and correction."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from branches.motion.monkey_net import MonkeyNetBranch
from datasets.source import ClipSource
from docs.drawing.canvas import GRID_LINES, NUM_EXAMPLES, cells, draw_grid, mark, show
from docs.drawing.motion import example_frames
from media.visualization import colorize_weights, palette, to_uint8
from modules.dense_motion import sparse_motions
from modules.geometry import resize_grid
from modules.keypoint_detector import Keypoints
from modules.monkey_net.heatmaps import covariance_heatmaps

SCALE = 0.9  # of a picture
DEVIATIONS = 2  # radius of an ellipse, in standard deviations


@torch.inference_mode()
def draw_monkey_net(branch: MonkeyNetBranch, clips: ClipSource) -> Figure:
    """Draw keypoints with their covariances, the driving heatmaps, the motion weights, the field of
    the shifts alone and with the correction, the warped source and the prediction.
    """
    source, driving = example_frames(clips, NUM_EXAMPLES)
    keypoints = branch.detect(source), branch.detect(driving)
    motion = branch.dense_motion(source, *keypoints)
    height, width = motion.deformation.shape[1:3]
    shifts = sparse_motions(*keypoints, height, width)
    shifted = torch.einsum("bkhw,bkhwc->bhwc", motion.motion_weights, shifts)
    size = (source.shape[-2], source.shape[-1])
    pictures = {
        "$S$": source,
        "$D$": driving,
        "heatmaps of $D$": colored_heatmaps(keypoints[1], size),
        "weights": colorize_weights(motion.motion_weights, size),
        "shifts alone": source,
        "with correction": source,
        "warped $S$": branch.generator.warp(source, motion),
        r"$\hat{D}$": branch.generator(source, motion, *keypoints),
    }
    figure, axes = cells(len(source), len(pictures), list(pictures), SCALE)
    for column, images in enumerate(pictures.values()):
        for row, image in enumerate(to_uint8(images)):
            show(axes[row][column], image)
    for i, row in enumerate(axes):
        for axis, points in zip(row, keypoints, strict=False):
            draw_ellipses(axis, points, i)
            mark(axis, points, i)
        for axis, field in zip(row[4:], (shifted, motion.deformation), strict=False):
            draw_grid(axis, resize_grid(field[i : i + 1], GRID_LINES)[0])
    return figure


def colored_heatmaps(keypoints: Keypoints, size: tuple[int, int]) -> Tensor:
    """The heatmaps of B x K keypoints, each in its colour and 1 at its keypoint, and their mean
    colour where they add up to more: B x 3 x *size.
    """
    heatmaps = covariance_heatmaps(keypoints, *size, norm=1.0)
    heatmaps = heatmaps / heatmaps.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("bkhw,kc->bchw", heatmaps, palette(heatmaps.shape[1], heatmaps))


def draw_ellipses(axis: Axes, keypoints: Keypoints, index: int) -> None:
    """Draw the covariances of sample `index`."""
    assert keypoints.covariance is not None
    points, colors = keypoints.value[index], palette(keypoints.value.shape[1], keypoints.value)
    for point, matrix, color in zip(points, keypoints.covariance[index], colors, strict=True):
        variances, axes = torch.linalg.eigh(matrix)
        across, along = (2 * DEVIATIONS * variances.clamp(min=0).sqrt()).tolist()
        angle = torch.rad2deg(torch.atan2(axes[1, 1], axes[0, 1])).item()
        for edge, line in (("black", 2.4), (color.tolist(), 1.2)):
            ellipse = Ellipse(point.tolist(), along, across, angle=angle, fill=False)
            ellipse.set(edgecolor=edge, linewidth=line, zorder=2)
            axis.add_patch(ellipse)
