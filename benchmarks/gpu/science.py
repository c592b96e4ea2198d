"""What minutes of training on puppets show: bf16 against float32, and what the networks of the demo
learn at a larger size.
"""

import shutil
import statistics
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.gpu.checks import Check, Setup
from benchmarks.gpu.device_checks import SMALL_RUN, run_training
from common.json_files import parse_json
from logger import METRICS_FILE, PICTURES_FOLDER

NUM_STEPS: Final = 500
# Means over the last fifth of the steps should not differ by more than chance: see
# docs/performance.md, where the largest ratio was 1.045.
LARGEST_RATIO: Final = 1.1
LOSSES: Final = (
    *("unweighted/motion/perceptual", "unweighted/masks/high_perceptual"),
    *("unweighted/background/refine_perceptual", "discriminator_loss/encoder", "gradient_norm"),
)
UNLIMITED: Final = (
    "train.max_minutes=null",
    "train.min_steps=null",
    "train.min_steps_minutes=null",
)


def checks(setup: Setup) -> list[Check]:
    """See `checks.checks_of`."""
    half = setup.seconds // 2
    return [
        Check("puppets", partial(puppets, half - 30), half),
        Check("bf16 against float32", precisions, setup.seconds),
    ]


def precisions(setup: Setup) -> dict[str, Any]:
    """Train the demo in float32 and in bf16, and compare the ends of both runs."""
    ends = {}
    with TemporaryDirectory() as folder:
        for precision in ("float32", "bf16"):
            run = Path(folder) / precision
            steps = 2 if setup.tiny else NUM_STEPS
            keys = ["train.batch_size=16", f"train.max_steps={steps}", "log.scalars_every=2"]
            keys += [f"train.precision={precision}", "log.validate_every=1000", *UNLIMITED]
            keys += ["motion.prior.alone_until_epoch=0"]  # all losses from the first step on
            _train(setup, run, *keys)
            ends[precision] = _ends(run)
    found = {name: ends["bf16"][name] / ends["float32"][name] for name in ends["float32"]}
    failed = [
        f"{name}: {ratio:.3f} times as large in bf16"
        for name, ratio in found.items()
        if not setup.tiny and not 1 / LARGEST_RATIO < ratio < LARGEST_RATIO
    ]
    return {**found, "failed": failed}


def puppets(seconds: int, setup: Setup) -> dict[str, Any]:
    """Train the demo at 128 x 128 pixels for `seconds`, and validate it; its pictures are copied to
    the folder of the results.
    """
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        size = () if setup.tiny else ("data.image_size=128", "train.batch_size=16")
        minutes = f"train.max_minutes={max(10, seconds) / 60}"
        limit = ("train.max_steps=2",) if setup.tiny else (minutes, "train.max_steps=100000")
        _train(setup, run, *size, *UNLIMITED, *limit, "log.images_every=100000")
        lines = _lines(run)
        for picture in sorted((run / PICTURES_FOLDER).glob("validation-*.png"))[-4:]:
            shutil.copy(picture, setup.output / picture.name)
    last = next(line for line in reversed(lines) if line["kind"] == "validation")
    return {name: value for name, value in last.items() if isinstance(value, int | float)}


def _train(setup: Setup, run: Path, *overrides: str) -> None:
    """Train the demo, or in the tiny case a smaller one."""
    config = SMALL_RUN if setup.tiny else ("--config", "demo.yaml", "data.num_workers=8")
    run_training(setup, run, *config, *overrides)


def _ends(run: Path) -> dict[str, float]:
    """Mean of each loss over the last fifth of a run."""
    lines = [line for line in _lines(run) if line["kind"] == "train"]
    last = lines[-max(1, len(lines) // 5) :]
    return {name: statistics.fmean(line[name] for line in last) for name in LOSSES}


def _lines(run: Path) -> list[dict[str, Any]]:
    """The lines of the log of a run."""
    return [parse_json(line) for line in (run / METRICS_FILE).read_text().splitlines()]
