"""Draw the figures of the documentation from a checkpoint and the metrics of training runs.

    pip install -r docs/requirements.txt
    python docs/figures.py --checkpoint runs/demo/checkpoints/best.pt \
        --metrics runs/demo/metrics.jsonl --unhealthy runs/too-fast/metrics.jsonl

Every picture is output of the checkpoint on the first clips of its test split; none is chosen by
hand. The scalars at the start, in the middle and at the end of the first run are printed.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import checkpoint
from animation import Animator
from branches.motion import MotionBranch
from cli import run_entry_point
from config import Config
from datasets.build import build_source
from datasets.source import ClipSource
from errors import UserError
from evaluation import spread
from modules.blocks import AntiAliasDownsample
from modules.dense_motion import DenseMotion, sparse_motions
from modules.geometry import coordinate_grid, gaussian_heatmaps, resize_grid, warp
from modules.keypoint_detector import Keypoints
from modules.thin_plate import random_thin_plate
from visualization import colorize_weights, palette, to_uint8

Metrics = list[dict[str, Any]]  # the lines of a metrics.jsonl

NUM_SOURCES, NUM_MOMENTS = 6, 4  # columns and rows of the teaser
NUM_EXAMPLES = 3  # clips in the other figures
NUM_CANDIDATES = 6  # keypoints of the dense motion figure
CELL = 1.45  # inches, side of one picture
TITLE = 0.25  # inches, the line above the pictures
DPI = 100
MAX_BYTES = 300_000  # of a full-colour PNG; a larger one gets a palette of 256 colours
GOOD, BAD, TRUTH = "#1f6fb4", "#d1495b", "#777777"

# Panels of the curves
EQUIVARIANCE = ("unweighted/motion/equivariance_value", "unweighted/motion/equivariance_jacobian")
UNIT_INTERVAL = ("motion/background_weight", "motion/occlusion_mean")
MOTION = ("motion/keypoint_spread", "motion/keypoint_shift", *UNIT_INTERVAL)


class Example(NamedTuple):
    """The first and the middle frame of some test clips, and what the networks make of them."""

    source: Tensor
    driving: Tensor
    source_keypoints: Keypoints
    driving_keypoints: Keypoints
    motion: DenseMotion
    prediction: Tensor


def main(arguments: argparse.Namespace) -> None:
    plt.switch_backend("agg")  # files only; needs no display
    output = Path(arguments.output)
    healthy = read_metrics(Path(arguments.metrics))
    unhealthy = read_metrics(Path(arguments.unhealthy)) if arguments.unhealthy else None
    saved = checkpoint.load(Path(arguments.checkpoint))
    animator = Animator.from_checkpoint(saved, torch.device("cpu"))
    config, motion = saved.config, animator.motion
    clips = build_source(config.data, "test")
    example = compute_example(animator, clips)

    write(draw_teaser(animator, clips), output / "teaser.png")
    write(draw_keypoints(example), output / "keypoints.png")
    write(draw_thin_plate(motion, example), output / "thin_plate.png")
    write(draw_candidates(motion, example), output / "candidates.png")
    write(draw_generator(example), output / "generator.png")
    write(draw_pyramid(config, example), output / "pyramid.png")
    write(draw_curves(healthy), output / "curves.png")
    if unhealthy is not None:
        write(draw_collapse(healthy, unhealthy), output / "collapse.png")
    print_values(healthy)


@torch.inference_mode()
def compute_example(animator: Animator, clips: ClipSource) -> Example:
    """Run the motion branch on the first clips of the test split."""
    motion = animator.motion
    frames = [
        clips.read(i, [0, clips.num_frames(i) // 2])
        for i in range(min(NUM_EXAMPLES, len(clips.clips)))
    ]
    source, driving = (animator.to_device(np.stack(side)) for side in zip(*frames, strict=True))
    source_keypoints = motion.keypoint_detector(source)
    driving_keypoints = motion.keypoint_detector(driving)
    dense = motion.dense_motion(source, source_keypoints, driving_keypoints)
    prediction = motion.generator(source, dense)
    return Example(source, driving, source_keypoints, driving_keypoints, dense, prediction)


# Pictures


def draw_teaser(animator: Animator, clips: ClipSource) -> Figure:
    """The first test clip drives the first frames of the next ones: a column for each source."""
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
        # The first driving frame goes in for relative motion, and its result is not shown.
        predictions = np.concatenate([to_uint8(p) for _, p in animator.animate(source, driving)])
        for row, frame in enumerate(predictions[1:], start=1):
            show(axes[row][column], frame)
    axes[0][0].text(1, 0.5, "source ", ha="right", va="center", transform=axes[0][0].transAxes)
    axes[0][0].text(0.5, 0, "driving", ha="center", va="bottom", transform=axes[0][0].transAxes)
    return figure


def draw_keypoints(example: Example) -> Figure:
    """Keypoints and the axes of their Jacobians on source and driving frames."""
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
def draw_thin_plate(motion: MotionBranch, example: Example) -> Figure:
    """Driving frames, where T samples them, the transformed frames, and how well T is undone."""
    transform = random_thin_plate(
        len(example.driving),
        motion.transform.affine_std,
        motion.transform.thin_plate_std,
        motion.transform.grid_size,
        torch.Generator().manual_seed(0),
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
def draw_candidates(motion: MotionBranch, example: Example) -> Figure:
    """For the background and the keypoints with most weight: heatmap, warped source, weight."""
    dense, one = motion.dense_motion, slice(0, 1)
    source = dense.down(example.source[one])
    height, width = source.shape[-2:]
    points = [
        Keypoints(k.value[one], None if k.jacobian is None else k.jacobian[one])
        for k in (example.source_keypoints, example.driving_keypoints)
    ]
    candidates = sparse_motions(points[0], points[1], height, width)[0]
    warped = warp(source.expand(len(candidates), -1, -1, -1), candidates)
    heatmaps = [gaussian_heatmaps(k.value, height, width, dense.heatmap_variance) for k in points]
    difference = torch.cat((torch.zeros(1, height, width), (heatmaps[1] - heatmaps[0])[0]))
    weights = example.motion.motion_weights[0]
    heaviest = 1 + weights[1:].mean(dim=(1, 2)).argsort(descending=True)[:NUM_CANDIDATES]
    shown = [0, *heaviest.sort().values.tolist()]
    titles = ["background" if k == 0 else f"keypoint {k}" for k in shown]
    figure, axes = cells(3, len(shown), titles)
    names = ("heatmaps", "warped", "weight")
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name)
    for column, k in enumerate(shown):
        show(axes[0][column], difference[k].numpy(), cmap="coolwarm", vmin=-1, vmax=1)
        show(axes[1][column], to_uint8(warped[k]))
        show(axes[2][column], weights[k].numpy(), cmap="gray", vmin=0, vmax=1)
    return figure


@torch.inference_mode()
def draw_generator(example: Example) -> Figure:
    """From the source to the prediction: motion weights, deformation, warp, occlusion."""
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
    """One driving frame at every scale of the perceptual loss, each pixel visible."""
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


# Curves


def draw_curves(metrics: Metrics) -> Figure:
    """Every scalar of one run that tells how it goes."""
    figure, axes = plt.subplots(3, 4, figsize=(12, 7), layout="constrained")
    names = ("unweighted/motion/perceptual", *EQUIVARIANCE, "gradient_norm", *MOTION)
    for axis, name in zip(axes[:2].flat, names, strict=True):
        plot(axis, name, {GOOD: metrics})
    for axis, name in zip(axes[2], ("l1", "figure_l1", "psnr", "ssim"), strict=True):
        plot_validation(axis, metrics, name)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    return figure


def draw_collapse(healthy: Metrics, unhealthy: Metrics) -> Figure:
    """A healthy and an unhealthy run: scalars that hardly depend on the size of the networks."""
    figure, axes = plt.subplots(2, 4, figsize=(12, 4.8), layout="constrained")
    for axis, name in zip(axes.flat, (*EQUIVARIANCE, *MOTION), strict=False):
        plot(axis, name, {GOOD: healthy, BAD: unhealthy})
    for axis, name in zip(axes[1][2:], ("l1", "figure_l1"), strict=True):
        for run, color, text in ((healthy, GOOD, "healthy"), (unhealthy, BAD, "unhealthy")):
            steps, values = series(run, name, "validation")
            _, baseline = series(run, f"baseline_{name}", "validation")
            ratio = [v / b for v, b in zip(values, baseline, strict=True)]
            axis.plot(steps, ratio, "o-", color=color, markersize=4, label=text)
        axis.axhline(1, color=TRUTH, linestyle="--", linewidth=1)
        decorate(axis, f"validation/{name} / baseline")
    axes[1][3].legend(frameon=False, fontsize=8)
    return figure


def plot(axis: Axes, name: str, runs: dict[str, Metrics]) -> None:
    """The scalar `name` of training runs, given by their colour."""
    for color, metrics in runs.items():
        axis.plot(*series(metrics, name, "train"), color=color, linewidth=1.4)
    if name in UNIT_INTERVAL:
        axis.set_ylim(0, 1.03)
    elif name == "gradient_norm":
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    decorate(axis, name)


def plot_validation(axis: Axes, metrics: Metrics, name: str) -> None:
    axis.plot(*series(metrics, name, "validation"), "o-", color=GOOD, markersize=4)
    axis.plot(*series(metrics, f"baseline_{name}", "validation"), color=TRUTH, linestyle="--")
    decorate(axis, f"validation/{name} (dashed: baseline)")


def decorate(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def series(metrics: Metrics, name: str, kind: str) -> tuple[list[int], list[float]]:
    """Steps and values of one scalar; lines without it, or with null for it, are left out."""
    rows = [row for row in metrics if row["kind"] == kind and row.get(name) is not None]
    return [row["step"] for row in rows], [row[name] for row in rows]


def read_metrics(path: Path) -> Metrics:
    """The lines of a run's metrics.jsonl; raises UserError if it is none or has no scalars yet."""
    try:
        metrics = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no metrics of a run ({error}); give its metrics.jsonl") from error
    if not any(row["kind"] == "train" for row in metrics):
        raise UserError(f"{path}: no training scalars in it; train past log.scalars_every steps")
    return metrics


def print_values(metrics: Metrics) -> None:
    """A Markdown table of the scalars at the first log, in the middle and at the end."""
    rows = [row for row in metrics if row["kind"] == "train"]
    chosen = [rows[0], rows[len(rows) // 2], rows[-1]]
    print("| scalar |", " | ".join(f"step {row['step']}" for row in chosen), "|")
    print("|---" * (1 + len(chosen)) + "|")
    for name in (name for name in rows[0] if name not in ("step", "kind")):
        print(f"| {name} |", " | ".join(f"{row[name]:.3g}" for row in chosen), "|")


# Drawing


def cells(
    rows: int, columns: int, titles: Sequence[str] = (), scale: float = 1.0
) -> tuple[Figure, Any]:
    """A grid of axes for pictures, without ticks, axes[row][column], with titles of the columns."""
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
    """A picture in our coordinates: corner pixels have their centres at -1 and 1."""
    height, width = image.shape[:2]
    x, y = 1 + 1 / (width - 1), 1 + 1 / (height - 1)
    axis.imshow(
        image, extent=(-x, x, y, -y), interpolation=interpolation, aspect=height / width, **colors
    )
    axis.set_xlim(-x, x)
    axis.set_ylim(y, -y)


def mark(axis: Axes, keypoints: Keypoints, index: int, jacobian: bool = True) -> None:
    """Discs in the keypoints' colours, and the columns of their Jacobians as short lines."""
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
    """Lines through a field of points, rows x columns x 2."""
    for line in (*points, *points.transpose(0, 1)):
        axis.plot(*line.T, color="white", linewidth=0.9, alpha=0.85)


def write(figure: Figure, path: Path) -> None:
    """A PNG small enough for a repository."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, facecolor="white")
    plt.close(figure)
    picture = Image.open(buffer).convert("RGB")
    if len(buffer.getvalue()) > MAX_BYTES:
        picture = picture.quantize(256, kmeans=2)
    with checkpoint.replacing(path) as temporary:
        picture.save(temporary, "png", optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KB")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="figures.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument("--metrics", required=True, metavar="PATH", help="metrics.jsonl of its run")
    parser.add_argument("--unhealthy", metavar="PATH", help="of a run that went wrong, to compare")
    parser.add_argument("--output", metavar="DIR", default=str(Path(__file__).parent / "figures"))
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
