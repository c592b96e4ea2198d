"""Draw the losses of one training run in float32 and in bf16.

    pip install -e '.[docs]'
    python -m docs.drawing.performance --float32 runs/float32/metrics.jsonl \
        --bf16 runs/bf16/metrics.jsonl

Also prints the mean of each loss over the last fifth of both runs, and the ratio of the two means.
"""

import argparse
import statistics
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.tables import markdown_table
from common.cli import run_entry_point
from docs.drawing.canvas import write
from docs.drawing.curves import BAD, GOOD, Metrics, plot, read_metrics, series

LOSSES = (
    "unweighted/motion/perceptual",
    "unweighted/motion/equivariance_value",
    "unweighted/masks/high_perceptual",
    "unweighted/masks/prior",
    "unweighted/background/refine_perceptual",
    "unweighted/adversarial/encoder_features",
    "discriminator_loss/encoder",
    "gradient_norm",
)


def main(arguments: argparse.Namespace) -> None:
    plt.switch_backend("agg")  # files only; needs no display
    runs = {
        name: read_metrics(Path(path))
        for name, path in (("float32", arguments.float32), ("bf16", arguments.bf16))
    }
    write(draw_precision(runs), Path(arguments.output) / "precision.png")
    rows = []
    for loss in LOSSES:
        row: dict[str, str | float | None] = {"loss": loss}
        row |= {name: _end(metrics, loss) for name, metrics in runs.items()}
        rows.append(row | {"ratio": _end(runs["bf16"], loss) / _end(runs["float32"], loss)})
    print(markdown_table(rows))


def draw_precision(runs: dict[str, Metrics]) -> Figure:
    """Draw the losses of both runs, with a panel for each loss."""
    figure, axes = plt.subplots(2, 4, figsize=(12, 4.8), layout="constrained")
    colors = dict(zip(runs, (GOOD, BAD), strict=True))
    for axis, loss in zip(axes.flat, LOSSES, strict=True):
        plot(axis, loss, {colors[name]: metrics for name, metrics in runs.items()})
    for name, color in colors.items():
        axes[0, 0].plot([], [], color=color, label=name)
    axes[0, 0].legend(frameon=False, fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    return figure


def _end(metrics: Metrics, loss: str) -> float:
    """Mean of a loss over the last fifth of a run."""
    _, values = series(metrics, loss, "train")
    return statistics.fmean(values[-max(1, len(values) // 5) :])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--float32", required=True, metavar="METRICS.jsonl")
    parser.add_argument("--bf16", required=True, metavar="METRICS.jsonl")
    parser.add_argument("--output", default="docs/figures", metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
