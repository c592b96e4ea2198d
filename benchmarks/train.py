"""Measure how fast a training step is, optimization by optimization, and what memory it takes.

    python -m benchmarks.train --config vox-fomm.yaml data.kind=puppets data.id_sampling=false \\
        perceptual.weights=random train.batch_size=4 train.precision=bf16

The first row is the plain step in float32, as the published programs compute it
(benchmarks/plain_step.py). Each row adds an optimization to the one above, and the last row is the
step of the config. All rows have the same weights and the same batch. In every round each row runs
once, in a process of its own, so that other load on the machine affects all rows, and no row
profits from memory that another has left. The first steps of a process are left out.

    ms, samples/s  time of the median step, and the speed that follows
    ratio          samples/s, divided by those of the plain step
    GFLOP          operations of convolutions and matrix products, forward and backward, for one
                   sample
    TFLOP/s        these operations, divided by the time
    peak           TFLOP/s, divided by the speed of one large matrix product in the same precision
                   (MFU)
    memory         peak of the process, above what it held before the networks were built: memory of
                   the CUDA device if there is one, else resident memory
    loss           losses of the first step: of the model, and of the discriminator

The share of its time that the last row waits for data, in steps with the real loader, is printed
below the table.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.plain_step import OPTIMIZATIONS, Optimization, without
from benchmarks.tables import markdown_table
from benchmarks.training_steps import (
    build_trainer,
    first_batch,
    in_fresh_process,
    memory_above,
    peak_memory,
    seconds,
    step_parser,
    take_step,
    without_auto,
)
from common.cli import pick_device, positive_int, run_entry_point
from common.errors import UserError
from common.files import check_output_file, replacing
from common.safe_paths import printable
from common.speed_trial import HALF_DTYPES
from configs.loading import load_config, override_config
from configs.schema import Config
from datasets.loading import loaded_batches
from datasets.pairs import BatchSchedule, PairBatch
from training.acceleration import uncompiled
from training.trainer import Trainer

MIXES = 0.0  # value of `host_random`; a step mixes if it is below the probability
_WARM_UP = 3  # steps after the first that are left out on a GPU, or with compiled networks
_PREFETCHED = 2  # batches that each worker of the loader makes ahead
_MAX_LOADED = 60.0  # seconds of steps with the real loader


class Variant(NamedTuple):
    """A row of the table: a trainer, and the optimizations that are undone in it."""

    trainer: Trainer
    missing: list[Optimization]

    def step(self, batch: PairBatch) -> dict[str, torch.Tensor]:
        """Take one step, which mixes images if the config ever does; returns its scalars."""
        with without(self.missing):
            return take_step(self.trainer, batch, MIXES).scalars


class RowMeasurement(NamedTuple):
    """Measurements of a row by one process.

    seconds: time of each step.
    flops: operations of the first step.
    losses: losses of the first step, as text; empty for compiled networks.
    peak: operations per second of a large matrix product in `precision`.
    memory: peak memory in bytes, above that from before the networks were built; None if unknown.
    """

    seconds: list[float]
    flops: int
    losses: str
    precision: str
    peak: float
    memory: int | None


def main(arguments: argparse.Namespace) -> None:
    if arguments.config is None:
        raise UserError("--config is missing: give a file, or a name such as vox-fomm.yaml")
    output = Path(arguments.output)
    check_output_file(output, "train.json")
    device = pick_device(arguments.device)
    config = without_auto(load_config(arguments.config, arguments.overrides), device)
    rows = undone_by_row(config)
    measurements: dict[str, list[RowMeasurement]] = {name: [] for name in rows}
    turns = [name for _ in range(arguments.rounds) for name in rows]
    for name in tqdm(turns, unit="row", disable=None):
        measure = partial(measure_row, config, name, arguments.device, arguments.steps)
        measurements[name].append(in_fresh_process(measure))
    peaks: dict[str, float] = {}
    for found in chain.from_iterable(measurements.values()):
        peaks[found.precision] = max(found.peak, peaks.get(found.precision, 0.0))
    table = [
        row_of_table(name, of_row, peaks, config.train.batch_size)
        for name, of_row in measurements.items()
    ]
    for row in table:
        row["ratio"] = table[0]["ms"] / row["ms"]
    waiting, num_loaded = in_fresh_process(
        partial(time_waiting, config, arguments.device, arguments.loaded_steps)
    )
    report = {
        "config": arguments.config,
        "overrides": arguments.overrides,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "batch_size": config.train.batch_size,
        "rounds": arguments.rounds,
        "steps": arguments.steps,
        "peak_tflops": {name: flops / 1e12 for name, flops in peaks.items()},
        "rows": table,
        "waiting_for_data": waiting,
    }
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    print(
        markdown_table([{name: _text(name, cell) for name, cell in row.items()} for row in table])
    )
    shown = ", ".join(f"{name} {value:.3g}" for name, value in report["peak_tflops"].items())
    print(
        f"\npeak, TFLOP/s: {shown}\nwaiting for data: {waiting:.1%} of {num_loaded} steps\n"
        f"{printable(str(output))}"
    )


def undone_by_row(config: Config) -> dict[str, list[Optimization]]:
    """The optimizations that are undone in each row, by the row's name."""
    optimizations = [
        optimization
        for optimization in OPTIMIZATIONS
        if optimization.applies(config) and not _is_off(optimization, config)
    ]
    names = ["plain", *(f"+ {optimization.name}" for optimization in optimizations)]
    return {name: optimizations[i:] for i, name in enumerate(names)}


def _is_off(optimization: Optimization, config: Config) -> bool:
    """Whether the config itself has the optimization switched off."""
    return bool(optimization.off) and override_config(config, list(optimization.off)) == config


def build_variant(config: Config, missing: list[Optimization], device: torch.device) -> Variant:
    """Build the trainer of `config` without the optimizations `missing`."""
    with without(missing):
        trainer = build_trainer(
            override_config(
                config, [override for optimization in missing for override in optimization.off]
            ),
            device,
        )
    for optimization in missing:
        if optimization.prepare is not None:
            optimization.prepare(trainer)
    return Variant(trainer, missing)


def measure_row(config: Config, row: str, device_name: str, num_steps: int) -> RowMeasurement:
    """Measure `num_steps` steps of a row, after some that are not timed."""
    device = pick_device(device_name)
    batch = first_batch(config).to(device)
    before = peak_memory(device)
    variant = build_variant(config, undone_by_row(config)[row], device)
    train = variant.trainer.config.train
    with FlopCounterMode(display=False) as counter, uncompiled(train):
        losses = _show_losses(variant.step(batch))
    is_compiled = train.compile != "none"
    if is_compiled or device.type != "cpu":
        for _ in range(_WARM_UP):
            variant.step(batch)
    taken = [seconds(partial(variant.step, batch), device) for _ in range(num_steps)]
    return RowMeasurement(
        taken,
        counter.get_total_flops(),
        "" if is_compiled else losses,  # the first step ran uncompiled
        train.precision,
        _peak(train.precision, device),
        memory_above(before, device),
    )


def _show_losses(scalars: dict[str, torch.Tensor]) -> str:
    """The losses of the model and of the discriminator, if there is one, as text."""
    names = ("loss/total", "discriminator_loss/total")
    return ", ".join(f"{float(scalars[name]):.6g}" for name in names if name in scalars)


def _peak(precision: str, device: torch.device) -> float:
    """FLOP/s of a large matrix product; in float32 with TF32 if convolutions may use it."""
    dtype = HALF_DTYPES.get(precision, torch.float32)
    # So large that the time to start a product does not matter.
    size, num_products = (2048, 1) if device.type == "cpu" else (4096, 20)
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        taken = seconds(lambda: [a @ b for _ in range(num_products)], device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return num_products * 2 * size**3 / taken


def row_of_table(
    name: str, measurements: list[RowMeasurement], peaks: Mapping[str, float], batch_size: int
) -> dict[str, Any]:
    """A row of the table from all its measurements; the ratio is filled in later.

    Args:
        peaks: FLOP/s of a large matrix product, by precision.
    """
    taken = statistics.median(chain.from_iterable(found.seconds for found in measurements))
    first = measurements[0]
    memory = [found.memory for found in measurements if found.memory is not None]
    return {
        "row": name,
        "ms": 1000 * taken,
        "samples/s": batch_size / taken,
        "ratio": 1.0,
        "GFLOP": first.flops / batch_size / 1e9,
        "TFLOP/s": first.flops / taken / 1e12,
        "peak": first.flops / taken / peaks[first.precision],
        "memory_gib": max(memory) / 2**30 if memory else None,
        "loss": first.losses,
    }


def time_waiting(config: Config, device_name: str, num_steps: int) -> tuple[float, int]:
    """Share of the time of at most `num_steps` steps that is spent waiting for a batch, and the
    number of steps, which ends after `_MAX_LOADED` seconds.
    """
    variant = build_variant(config, [], pick_device(device_name))
    trainer, data = variant.trainer, config.data
    schedule = BatchSchedule(len(trainer.pairs), config.train.batch_size, config.seed)
    waited = 0.0
    with loaded_batches(
        trainer.pairs, schedule, data.num_workers, trainer.device.type == "cuda"
    ) as batches:
        for _ in range(_PREFETCHED * data.num_workers + 1):  # they are made while the workers start
            next(batches)
        begun = started = time.perf_counter()
        done = 0
        while done < num_steps and started - begun < _MAX_LOADED:
            batch = next(batches).to(trainer.device)
            waited += time.perf_counter() - started
            variant.step(batch)
            done += 1
            started = time.perf_counter()
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
    return waited / (time.perf_counter() - begun), done


def _text(name: str, cell: str | float | None) -> str:
    """The text of a cell of the column `name`."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    if name == "peak":
        return f"{cell:.0%}"
    return f"{cell:.0f}" if name in ("ms", "GFLOP") else f"{cell:.2f}"


def build_parser() -> argparse.ArgumentParser:
    parser = step_parser("benchmarks.train", __doc__, rounds=3, output="runs/train.json")
    parser.add_argument(
        "--steps",
        type=positive_int,
        default=5,
        help="steps of every row that are timed in every round (default: 5)",
    )
    parser.add_argument(
        "--loaded-steps",
        type=positive_int,
        default=100,
        help="steps with the real loader, to measure the waiting for data; fewer if they take more "
        "than a minute (default: 100)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
