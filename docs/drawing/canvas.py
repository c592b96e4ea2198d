"""Tools for figures: pictures in rows and columns, keypoints, grids, and PNG files."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from torch import Tensor

from common.files import replacing
from media.visualization import palette
from modules.keypoint_detector import Keypoints

DEVICE = torch.device("cpu")
NUM_EXAMPLES = 3  # clips in a figure
CELL = 1.45  # inches, side of a picture
TITLE = 0.25  # inches, height of the line of titles
DPI = 100
MAX_BYTES = 300_000  # of a full-colour PNG; a larger one gets a palette of 256 colours
GRID_LINES = (13, 13)  # drawn of a field, down and across


def cells(
    rows: int, columns: int, titles: Sequence[str] = (), scale: float = 1.0
) -> tuple[Figure, Any]:
    """Make a figure with a grid of axes for pictures: axes[row][column], without ticks.

    Args:
        titles: titles of the columns.
        scale: size of a picture, in CELL.
    """
    side = CELL * scale
    size = (side * columns, side * rows + TITLE * bool(titles))
    layout = ConstrainedLayoutEngine(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout=layout)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=10)
    return figure, axes


def show(axis: Axes, image: np.ndarray, interpolation: str = "bicubic", **colors: Any) -> None:
    """Show a picture in the coordinates of keypoints: centres of corner pixels are at -1 and 1."""
    height, width = image.shape[:2]
    x, y = 1 + 1 / (width - 1), 1 + 1 / (height - 1)
    axis.imshow(
        image, extent=(-x, x, y, -y), interpolation=interpolation, aspect=height / width, **colors
    )
    axis.set_xlim(-x, x)
    axis.set_ylim(y, -y)


def show_mask(axis: Axes, mask: Tensor) -> None:
    """Show a map, 1 x 1 x h x w in [0, 1], without interpolation; 1 is white."""
    show(axis, mask[0, 0].numpy(), interpolation="nearest", cmap="gray", vmin=0, vmax=1)


def show_framed_mask(axis: Axes, mask: Tensor) -> None:
    """Show a map as `show_mask` does, with an edge around it, which a white map would lack."""
    show_mask(axis, mask)
    axis.spines[:].set_visible(True)
    axis.spines[:].set_color("silver")


def mark(axis: Axes, keypoints: Keypoints, index: int, jacobian: bool = True) -> None:
    """Draw the keypoints of sample `index` as discs, and columns of their Jacobians as lines."""
    points = keypoints.value[index]
    colors = palette(len(points), points).numpy()
    if jacobian and keypoints.jacobian is not None:
        for point, matrix, color in zip(points, keypoints.jacobian[index], colors, strict=True):
            for direction in matrix.T:
                line = torch.stack((point, point + 0.14 * direction)).T
                axis.plot(*line, color="black", linewidth=2.6, zorder=2)
                axis.plot(*line, color=color, linewidth=1.4, zorder=3)
    axis.scatter(
        points[:, 0], points[:, 1], c=colors, s=30, edgecolors="black", linewidths=0.8, zorder=3
    )


def draw_grid(axis: Axes, points: Tensor) -> None:
    """Draw lines through a field of points, rows x columns x 2."""
    for line in (*points, *points.transpose(0, 1)):
        axis.plot(*line.T, color="white", linewidth=0.9, alpha=0.85)


def write(figure: Figure, path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Save and close the figure, as a PNG that is small enough for a repository: one of more than
    `max_bytes` in full colour gets a palette.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, facecolor="white")
    plt.close(figure)
    picture = Image.open(buffer).convert("RGB")
    if len(buffer.getvalue()) > max_bytes:
        picture = picture.quantize(256, kmeans=2)
    with replacing(path) as temporary:
        picture.save(temporary, "png", optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KB")
