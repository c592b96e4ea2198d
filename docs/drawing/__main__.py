"""Draw the figures of the documentation from a checkpoint and the metrics of training runs.

    pip install -e '.[docs]'
    python -m docs.drawing --checkpoint runs/demo/checkpoints/best.pt \
        --metrics runs/demo/metrics.jsonl --unhealthy runs/too-fast/metrics.jsonl \
        --no-prior runs/no-prior/metrics.jsonl

The checkpoint must have all branches, a discriminator, and a motion model of kind fomm, whose parts
the figures show, and be trained on puppets (demo.yaml). Every picture is its output on the first
clips of the test split; none is chosen by hand. The command also prints the scalars at the start,
in the middle and at the end of the run of --metrics.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from branches.model import Model
from branches.motion.fomm import FommBranch
from checkpoints import checkpoint
from checkpoints.weights import load_model
from common.cli import run_entry_point
from common.errors import UserError
from configs.motion.fomm import FommConfig
from configs.schema import Config
from datasets.build import build_source
from datasets.puppets.clips import Puppets
from docs.drawing.adversary import draw_cut, draw_pixel_logits, load_adversary
from docs.drawing.background import draw_columns, draw_swap
from docs.drawing.canvas import write
from docs.drawing.curves import (
    draw_adversarial_curves,
    draw_collapse,
    draw_curves,
    draw_mask_collapse,
    print_values,
    read_metrics,
)
from docs.drawing.edges import draw_rim
from docs.drawing.masks import draw_masks, draw_perturbation, draw_prior
from docs.drawing.motion import (
    compute_example,
    draw_candidates,
    draw_generator,
    draw_keypoints,
    draw_pyramid,
    draw_teaser,
    draw_thin_plate,
)
from training.adversary import Adversary


def main(arguments: argparse.Namespace) -> None:
    plt.switch_backend("agg")  # files only; needs no display
    output = Path(arguments.output)
    healthy = read_metrics(Path(arguments.metrics))
    unhealthy = read_metrics(Path(arguments.unhealthy)) if arguments.unhealthy else None
    path = Path(arguments.checkpoint)
    saved = checkpoint.load(path)
    if saved.config.data.kind != "puppets" or len(saved.config.branches) < 3:
        raise UserError(
            f"{path}: the figures show all branches beside the rendered truth; give a checkpoint "
            "trained on puppets with motion, masks and background (demo.yaml)"
        )
    if not isinstance(saved.config.motion, FommConfig):
        raise UserError(
            f"{path}: the figures show the parts of a motion model of kind fomm; give a checkpoint "
            "of one (demo.yaml)"
        )
    adversary = load_adversary(saved)
    model = load_model(saved, torch.device("cpu"))
    pictures = draw_pictures(model, adversary, saved.config)
    for name, figure in pictures.items():
        write(figure, output / f"{name}.png")
    write(draw_curves(healthy), output / "curves.png")
    write(draw_adversarial_curves(healthy), output / "adversarial_curves.png")
    if unhealthy is not None:
        write(draw_collapse(healthy, unhealthy), output / "collapse.png")
    if arguments.no_prior:
        no_prior = read_metrics(Path(arguments.no_prior))
        write(draw_mask_collapse(healthy, no_prior), output / "mask_collapse.png")
    print_values(healthy)


def draw_pictures(model: Model, adversary: Adversary, config: Config) -> dict[str, Figure]:
    """Draw all figures that show outputs of the networks on the test split, by file name; the model
    is on the CPU.
    """
    motion, masks, background = model.motion, model.masks, model.background
    assert isinstance(motion, FommBranch), "main refuses others"
    assert masks is not None
    assert background is not None
    clips = build_source(config.data, "test")
    assert isinstance(clips, Puppets)
    example = compute_example(motion, clips)
    return {
        "teaser": draw_teaser(motion, clips),
        "keypoints": draw_keypoints(example),
        "thin_plate": draw_thin_plate(motion, example),
        "candidates": draw_candidates(motion, example),
        "generator": draw_generator(example),
        "pyramid": draw_pyramid(config, example),
        "masks": draw_masks(masks, clips),
        "perturbation": draw_perturbation(masks, clips),
        "prior": draw_prior(masks, clips),
        "columns": draw_columns(model, clips),
        "swap": draw_swap(model, clips),
        "rim": draw_rim(clips),
        "cut": draw_cut(adversary, example),
        "pixel_logits": draw_pixel_logits(adversary, example),
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m docs.drawing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument("--metrics", required=True, metavar="PATH", help="metrics.jsonl of its run")
    parser.add_argument(
        "--unhealthy", metavar="PATH", help="metrics.jsonl of a run that went wrong, to compare"
    )
    parser.add_argument(
        "--no-prior", metavar="PATH", help="metrics.jsonl of a run without the mask prior"
    )
    parser.add_argument(
        "--output", metavar="DIR", default=str(Path(__file__).parents[1] / "figures")
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
