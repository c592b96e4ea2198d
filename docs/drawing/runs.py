"""Reads runs for the figures: those of benchmarks/ablation.py, a folder for each row and seed."""

from pathlib import Path
from typing import NamedTuple

from branches.model import Model
from checkpoints import checkpoint
from checkpoints.folder import list_steps
from checkpoints.weights import load_model
from common.errors import UserError
from configs.schema import Config
from docs.drawing.canvas import DEVICE


class TrainedRun(NamedTuple):
    """The model of a run's last checkpoint, in evaluation mode, and the config of the run."""

    model: Model
    config: Config


def load_run(folder: Path) -> TrainedRun:
    """Load the last checkpoint of the run in `folder`.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    steps = list_steps(folder)
    if not steps:
        raise UserError(f"{folder}: no checkpoint of a run; give the folder of a trained one")
    saved = checkpoint.load(steps[0])
    return TrainedRun(load_model(saved, DEVICE), saved.config)


def row_folder(runs: Path, row: str, seed: int) -> Path:
    """The folder that benchmarks/ablation.py gives a row and a seed."""
    return runs / f"{row}-{seed}"
