"""Draw the same frames as every row of benchmarks/ablation.py reconstructs them.

    pip install -e '.[docs]'
    python -m docs.drawing.rows --runs runs/ablation

There is a column for each row that is finished, in the order of benchmarks/ablation_rows.py.
The frames are the middle ones of the first test clips, and the source is the first frame, as it is
measured; none is chosen by hand.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from animation.branch_animators import reconstruction_animators
from benchmarks.ablation import REPORT_FILE
from benchmarks.ablation_rows import ROWS
from branches.model import Model
from common.cli import positive_int, run_entry_point
from common.errors import UserError
from common.files import check_output_file
from datasets.build import build_source
from datasets.source import ClipSource
from docs.drawing.canvas import DEVICE, cells, show, write
from docs.drawing.motion import example_frames
from docs.drawing.runs import TrainedRun, load_run, row_folder
from media.visualization import to_uint8

MAX_BYTES = 150_000  # of the figure in full colour
SCALE = 0.69  # of a picture
TITLE_SIZE = 8  # points


def main(arguments: argparse.Namespace) -> None:
    check_output_file(Path(arguments.output), "rows.png")
    plt.switch_backend("agg")  # files only; needs no display
    runs = load_rows(Path(arguments.runs), arguments.seed)
    config = next(iter(runs.values())).config
    clips = build_source(config.data, "test")
    figure = draw_rows({row: run.model for row, run in runs.items()}, clips, arguments.num_clips)
    write(figure, Path(arguments.output), MAX_BYTES)


def load_rows(folder: Path, seed: int) -> dict[str, TrainedRun]:
    """Load the finished rows of a seed in the folder of an ablation, by name.

    Raises:
        UserError: there is none; or they were trained on different data.
    """
    found = [row for row in ROWS if (row_folder(folder, row, seed) / REPORT_FILE).is_file()]
    if not found:
        raise UserError(
            f"{folder}: no finished row of seed {seed} in it, such as fomm-{seed}; give the "
            "--output of benchmarks.ablation, and one of its seeds with --seed"
        )
    runs = {row: load_run(row_folder(folder, row, seed)) for row in found}
    first = runs[found[0]].config.data
    for row, run in runs.items():
        if run.config.data != first:
            raise UserError(
                f"{row_folder(folder, row, seed)}: trained on other data than "
                f"{row_folder(folder, found[0], seed)}; give a folder of one ablation"
            )
    return runs


@torch.inference_mode()
def reconstruct_frames(model: Model, source: Tensor, driving: Tensor) -> Tensor:
    """Each source moved by the driving frame of its own clip, all B x 3 x H x W."""
    animator = reconstruction_animators(model, DEVICE)["motion"]
    pairs = zip(source.split(1), driving.split(1), strict=True)
    return torch.cat([animator.start(image)(frame) for image, frame in pairs])


def draw_rows(models: dict[str, Model], clips: ClipSource, num_clips: int) -> Figure:
    """Draw source, driving frame and the prediction of each model, by row."""
    source, driving = example_frames(clips, num_clips)
    columns = {"source": source, "driving": driving}
    columns |= {row: reconstruct_frames(model, source, driving) for row, model in models.items()}
    figure, axes = cells(len(source), len(columns), list(columns), SCALE)
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0][column].set_title(title.replace("-prior", "\nprior"), fontsize=TITLE_SIZE)
        for row, picture in enumerate(to_uint8(pictures)):
            show(axes[row][column], picture)
    return figure


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m docs.drawing.rows",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--runs", required=True, metavar="DIR", help="the --output of benchmarks.ablation"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--num-clips", type=positive_int, default=4, help="first test clips (default: 4)"
    )
    parser.add_argument(
        "--output", metavar="PNG", default=str(Path(__file__).parents[1] / "figures" / "rows.png")
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
