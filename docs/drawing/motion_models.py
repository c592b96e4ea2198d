"""Draw the figures of docs/motion_models.md from rows of benchmarks/ablation.py.

    pip install -e '.[docs]'
    python -m docs.drawing.motion_models --runs runs/ablation --plates runs/plates

The rows are monkey-net, monkey-net-prioritycut and x2face, of one seed. The run of --plates is one
of kind tpsmm, with four occlusion maps and the motion of the background, which its rows leave out.
All are trained on puppets. Every picture is an output of theirs on the first and the middle frame
of the first clips of the test split; none is chosen by hand.
"""

import argparse
import sys
from pathlib import Path
from typing import TypeVar

import matplotlib.pyplot as plt

from branches.motion.branch import MotionBranch
from branches.motion.monkey_net import MonkeyNetBranch
from branches.motion.tpsmm import TpsmmBranch
from branches.motion.x2face import X2FaceBranch
from common.cli import run_entry_point
from common.errors import UserError
from datasets.build import build_source
from datasets.source import ClipSource
from docs.drawing.canvas import write
from docs.drawing.model_cuts import draw_model_cuts
from docs.drawing.monkey_net import draw_monkey_net
from docs.drawing.runs import load_run, row_folder
from docs.drawing.tpsmm import draw_plates, draw_tpsmm
from docs.drawing.x2face import draw_several_sources, draw_x2face

MAX_BYTES = 150_000  # of a figure in full colour

Kind = TypeVar("Kind", bound=MotionBranch)


def main(arguments: argparse.Namespace) -> None:
    plt.switch_backend("agg")  # files only; needs no display
    output, runs = Path(arguments.output), Path(arguments.runs)

    def row(name: str, kind: type[Kind]) -> tuple[Kind, ClipSource]:
        return load_branch(row_folder(runs, name, arguments.seed), kind)

    monkey_net, clips = row("monkey-net", MonkeyNetBranch)
    x2face = row("x2face", X2FaceBranch)[0]
    figures = {
        "monkey_net": draw_monkey_net(monkey_net, clips),
        "x2face": draw_x2face(x2face, clips),
        "x2face_sources": draw_several_sources(x2face, clips),
    }
    plates, their_clips = load_branch(Path(arguments.plates), TpsmmBranch)
    figures["tpsmm_plates"] = draw_plates(plates, their_clips)
    figures["tpsmm"] = draw_tpsmm(plates, their_clips)
    with_head = row("monkey-net-prioritycut", MonkeyNetBranch)[0]
    figures["model_cuts"] = draw_model_cuts(plates, with_head, monkey_net, x2face, clips)
    for name, figure in figures.items():
        write(figure, output / f"{name}.png", MAX_BYTES)


def load_branch(folder: Path, kind: type[Kind]) -> tuple[Kind, ClipSource]:
    """Load the motion branch of a run, and its test clips.

    Raises:
        UserError: the run has no checkpoint, or another kind of motion model.
    """
    model, config = load_run(folder)
    if not isinstance(model.motion, kind):
        found = "null" if model.motion is None else f"kind {model.motion.kind}"
        raise UserError(
            f"{folder}: trained with motion {found}; give a run of kind {kind.kind} there"
        )
    return model.motion, build_source(config.data, "test")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m docs.drawing.motion_models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--runs", required=True, metavar="DIR", help="the --output of benchmarks.ablation"
    )
    parser.add_argument("--seed", type=int, default=0, help="of its rows (default: 0)")
    parser.add_argument(
        "--plates", required=True, metavar="DIR", help="run folder of a model of kind tpsmm"
    )
    parser.add_argument(
        "--output", metavar="DIR", default=str(Path(__file__).parents[1] / "figures")
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
