"""What makes a training step fast, lever by lever: samples/s, arithmetic, peak, memory.

    python -m benchmarks.train --config vox-fomm.yaml data.kind=puppets data.id_sampling=false \\
        perceptual.weights=random train.batch_size=4 train.precision=bf16

The first row is the plain step in float32, as the published programs compute it
(benchmarks/plain_step.py); each row adds a lever to the one above, and the last is the step of the
config. All have the same weights and take the same batch. Every round starts a process for each row
in turn, so that whatever else the machine does reaches all of them, and none profits from memory
that another has left; its first steps are left out.

    ms, samples/s  of the median step
    ratio          samples/s, to those of the plain step
    GFLOP          of convolutions and matrix products, of one sample, forward and backward
    TFLOP/s        those, by the time
    peak           that, to the speed of one large matrix product in the same precision (MFU)
    memory         peak of the process, above what it held before the networks were built: of the
                   CUDA device where there is one, else resident
    loss           of the first step: what the branches minimize, and the discriminator

Below stands how much of its time the last row waits for data, over steps with the real loader.
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

from benchmarks.plain_step import LEVERS, Lever, without
from benchmarks.steps import (
    build_trainer,
    first_batch,
    in_fresh_process,
    peak_memory,
    seconds,
    step_parser,
    take_step,
    without_auto,
)
from benchmarks.tables import markdown_table
from common.cli import pick_device, positive_int, run_entry_point
from common.errors import UserError
from common.files import replacing
from common.speed_trial import HALF_DTYPES
from configs.loading import load_config, override_config
from configs.schema import Config
from datasets.loading import loaded_batches
from datasets.pairs import BatchSchedule, PairBatch
from training.acceleration import uncompiled
from training.trainer import Trainer

MIXES = 0.0  # `host_random` of a step, which mixes where it is below the probability
_WARM_UP = 3  # steps of a GPU or of compiled networks, besides the first, that are left out
_PREFETCHED = 2  # batches that each worker of the loader has ready


class Variant(NamedTuple):
    """A trainer and the levers that it does without."""

    trainer: Trainer
    missing: list[Lever]

    def step(self, batch: PairBatch) -> dict[str, torch.Tensor]:
        """One update, which mixes where the config ever does; its scalars."""
        with without(self.missing):
            return take_step(self.trainer, batch, MIXES).scalars


class Reading(NamedTuple):
    """What a process has found of a row: seconds of its steps; FLOP of the first, and its losses;
    FLOP/s of a matrix product in the precision of the row; bytes at the peak.
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
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; give a file")
    device = pick_device(arguments.device)
    config = without_auto(load_config(arguments.config, arguments.overrides), device)
    rows = ladder(config)
    readings: dict[str, list[Reading]] = {name: [] for name in rows}
    turns = [name for _ in range(arguments.rounds) for name in rows]
    for name in tqdm(turns, unit="row", disable=None):
        read = partial(read_row, config, name, arguments.device, arguments.steps)
        readings[name].append(in_fresh_process(read))
    peaks: dict[str, float] = {}
    for reading in chain.from_iterable(readings.values()):
        peaks[reading.precision] = max(reading.peak, peaks.get(reading.precision, 0.0))
    table = [
        row_of_table(name, found, peaks, config.train.batch_size)
        for name, found in readings.items()
    ]
    for row in table:
        row["ratio"] = table[0]["ms"] / row["ms"]
    waiting = in_fresh_process(
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
        f"\npeak, TFLOP/s: {shown}\nwaiting for data: {waiting:.1%} of "
        f"{arguments.loaded_steps} steps\n{output}"
    )


def ladder(config: Config) -> dict[str, list[Lever]]:
    """The levers that each row does without, by its name."""
    levers = [lever for lever in LEVERS if lever.applies(config) and not _is_off(lever, config)]
    names = ["plain", *(f"+ {lever.name}" for lever in levers)]
    return {name: levers[i:] for i, name in enumerate(names)}


def _is_off(lever: Lever, config: Config) -> bool:
    """Whether the config itself does without."""
    return bool(lever.off) and override_config(config, list(lever.off)) == config


def build_contestant(config: Config, missing: list[Lever], device: torch.device) -> Variant:
    """The step of `config` without some levers."""
    with without(missing):
        trainer = build_trainer(
            override_config(config, [override for lever in missing for override in lever.off]),
            device,
        )
    for lever in missing:
        if lever.prepare is not None:
            lever.prepare(trainer)
    return Variant(trainer, missing)


def read_row(config: Config, row: str, device_name: str, num_steps: int) -> Reading:
    """Time `num_steps` steps of a row, after some that are not timed."""
    device = pick_device(device_name)
    batch = first_batch(config).to(device)
    before = peak_memory(device)
    variant = build_contestant(config, ladder(config)[row], device)
    train = variant.trainer.config.train
    with FlopCounterMode(display=False) as counter, uncompiled(train):
        losses = _show_losses(variant.step(batch))
    is_compiled = train.compile != "none"
    if is_compiled or device.type != "cpu":
        for _ in range(_WARM_UP):
            variant.step(batch)
    taken = [seconds(partial(variant.step, batch), device) for _ in range(num_steps)]
    after = peak_memory(device)
    return Reading(
        taken,
        counter.get_total_flops(),
        "" if is_compiled else losses,  # the first was no compiled one
        train.precision,
        _peak(train.precision, device),
        None if before is None or after is None else after - before,
    )


def _show_losses(scalars: dict[str, torch.Tensor]) -> str:
    names = ("loss/total", "discriminator_loss/total")
    return ", ".join(f"{float(scalars[name]):.6g}" for name in names if name in scalars)


def _peak(precision: str, device: torch.device) -> float:
    """FLOP/s of matrix products; in float32 as fast as convolutions may be."""
    dtype = HALF_DTYPES.get(precision, torch.float32)
    # Large enough that starting them counts for nothing.
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
    name: str, readings: list[Reading], peaks: Mapping[str, float], batch_size: int
) -> dict[str, Any]:
    """See the file's docstring."""
    taken = statistics.median(chain.from_iterable(reading.seconds for reading in readings))
    first = readings[0]
    memory = [reading.memory for reading in readings if reading.memory is not None]
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


def time_waiting(config: Config, device_name: str, num_steps: int) -> float:
    """Share of the time of `num_steps` steps in which there was no batch yet."""
    variant = build_contestant(config, [], pick_device(device_name))
    trainer, data = variant.trainer, config.data
    schedule = BatchSchedule(len(trainer.pairs), config.train.batch_size, config.seed)
    waited = 0.0
    with loaded_batches(
        trainer.pairs, schedule, data.num_workers, trainer.device.type == "cuda"
    ) as batches:
        for _ in range(_PREFETCHED * data.num_workers + 1):  # made while the workers started
            next(batches)
        begun = time.perf_counter()
        for _ in range(num_steps):
            started = time.perf_counter()
            batch = next(batches).to(trainer.device)
            waited += time.perf_counter() - started
            variant.step(batch)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
    return waited / (time.perf_counter() - begun)


def _text(name: str, cell: str | float | None) -> str:
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
        help="that are timed of every row in every round (default: 5)",
    )
    parser.add_argument(
        "--loaded-steps",
        type=positive_int,
        default=100,
        help="steps with the real loader, in which waiting is timed (default: 100)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
