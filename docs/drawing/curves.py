"""Figures of the scalars in the logs of training runs."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.errors import UserError
from common.json_files import MAX_BYTES, parse_json
from common.safe_paths import printable, read_plain_file

Metrics = list[dict[str, Any]]  # the lines of a metrics.jsonl

GOOD, BAD, TRUTH = "#1f6fb4", "#d1495b", "#777777"  # colours: healthy, unhealthy, baseline

# Scalars of the panels
EQUIVARIANCE = ("unweighted/motion/equivariance_value", "unweighted/motion/equivariance_jacobian")
UNIT_INTERVAL = ("motion/background_weight", "motion/occlusion_mean")
MASKS = (
    "unweighted/masks/prior",
    *("masks/mask_mean", "masks/mask_binariness", "masks/mask_movement"),
)
MOTION = ("motion/keypoint_spread", "motion/keypoint_shift", *UNIT_INTERVAL)
ADVERSARY = (  # up to two scalars in a panel
    ("discriminator/real_logits", "discriminator/generated_logits"),
    ("discriminator/gap", "discriminator/pixel_gap"),
    ("discriminator_loss/encoder", "discriminator_loss/decoder"),
    ("discriminator_loss/consistency",),
    ("loss/adversarial/encoder", "loss/adversarial/decoder"),
    ("loss/adversarial/encoder_features", "loss/adversarial/decoder_features"),
    ("discriminator/cut_share",),
    ("discriminator/gradient_norm",),
)


def draw_curves(metrics: Metrics) -> Figure:
    """Draw the scalars of one run that show whether it is healthy."""
    figure, axes = plt.subplots(4, 4, figsize=(12, 9.2), layout="constrained")
    names = ("unweighted/motion/perceptual", *EQUIVARIANCE, "gradient_norm", *MOTION)
    for axis, name in zip(axes[:2].flat, names, strict=True):
        plot(axis, name, {GOOD: metrics})
    for axis, name in zip(axes[2], ("l1", "figure_l1", "psnr", "ssim"), strict=True):
        plot_validation(axis, metrics, name)
    for axis, name in zip(axes[3], MASKS, strict=True):
        plot(axis, name, {GOOD: metrics})
    for axis in axes[-1]:
        axis.set_xlabel("step")
    return figure


def draw_adversarial_curves(metrics: Metrics) -> Figure:
    """Draw the scalars of both players of one run."""
    figure, axes = plt.subplots(2, 4, figsize=(12, 4.8), layout="constrained")
    for axis, names in zip(axes.flat, ADVERSARY, strict=True):
        for name, color in zip(names, (GOOD, BAD), strict=False):
            label = name.rpartition("/")[2]
            axis.plot(*series(metrics, name, "train"), color=color, linewidth=1.4, label=label)
        if len(names) > 1:
            axis.legend(frameon=False, fontsize=8)
            decorate(axis, names[0].rpartition("/")[0])
        else:
            decorate(axis, names[0])
        if names[0].endswith(("/encoder", "/gradient_norm")):
            axis.set_yscale("log")  # the values of the first steps are much larger
            axis.tick_params(which="minor", labelsize=8)
    axes[1][2].set_ylim(0, 1.03)  # cut_share
    for axis in axes[-1]:
        axis.set_xlabel("step")
    return figure


def draw_mask_collapse(healthy: Metrics, no_prior: Metrics) -> Figure:
    """Draw the scalars of the masks in a run with the mask prior and in one without."""
    figure, axes = plt.subplots(1, 4, figsize=(12, 2.6), layout="constrained")
    for axis, name in zip(axes, MASKS[1:], strict=False):
        plot(axis, name, {GOOD: healthy, BAD: no_prior})
    for run, color, text in ((healthy, GOOD, "with prior"), (no_prior, BAD, "without")):
        axes[3].plot(*series(run, "mask_iou", "validation"), "o-", color=color, label=text)
    _, all_white = series(healthy, "mask_iou_all_white", "validation")
    axes[3].axhline(all_white[0], color=TRUTH, linestyle="--", linewidth=1)
    axes[3].set_ylim(0, 1)
    decorate(axes[3], "validation/mask_iou (dashed: all white)")
    axes[3].legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.set_xlabel("step")
    return figure


def draw_collapse(healthy: Metrics, unhealthy: Metrics) -> Figure:
    """Draw a healthy and an unhealthy run, by scalars that hardly depend on the networks' size."""
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
    """Draw the scalar `name` of training runs; `runs` has their metrics by colour."""
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
    """Draw the validation metric `name`, and its baseline."""
    axis.plot(*series(metrics, name, "validation"), "o-", color=GOOD, markersize=4)
    axis.plot(*series(metrics, f"baseline_{name}", "validation"), color=TRUTH, linestyle="--")
    decorate(axis, f"validation/{name} (dashed: baseline)")


def decorate(axis: Axes, title: str) -> None:
    """Give a panel its title and its grid."""
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def series(metrics: Metrics, name: str, kind: str) -> tuple[list[int], list[float]]:
    """Steps and values of the scalar `name`, without lines that lack it or have null for it."""
    rows = [row for row in metrics if row["kind"] == kind and row.get(name) is not None]
    return [row["step"] for row in rows], [row[name] for row in rows]


def read_metrics(path: Path) -> Metrics:
    """Read the lines of a run's metrics.jsonl.

    Raises:
        UserError: the file is not a metrics.jsonl, or has no training scalars yet.
    """
    try:
        metrics = [parse_json(line) for line in read_plain_file(path, MAX_BYTES).splitlines()]
        if not all(isinstance(row, dict) and row.keys() >= {"step", "kind"} for row in metrics):
            raise ValueError("a line has no step and kind")
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: has no metrics of a run ({error}); give its metrics.jsonl"
        ) from error
    if not any(row["kind"] == "train" for row in metrics):
        raise UserError(f"{path}: no training scalars in it; train past log.scalars_every steps")
    return metrics


def print_values(metrics: Metrics) -> None:
    """Print a Markdown table of the scalars at the first log, in the middle and at the end."""
    rows = [row for row in metrics if row["kind"] == "train"]
    chosen = [rows[0], rows[len(rows) // 2], rows[-1]]
    print("| scalar |", " | ".join(f"step {row['step']}" for row in chosen), "|")
    print("|---" * (1 + len(chosen)) + "|")
    for name in (name for name in rows[-1] if name not in ("step", "kind")):
        values = [f"{row[name]:.3g}" if name in row else "" for row in chosen]  # some start late
        print(f"| {printable(name)} |", " | ".join(values), "|")
