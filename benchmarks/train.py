"""What makes a training step fast, lever by lever: samples/s, arithmetic, peak, memory.

    python -m benchmarks.train --config vox-fomm.yaml data.kind=puppets data.id_sampling=false \\
        perceptual.weights=random train.batch_size=4 train.precision=bf16

The first row is the plain step in float32, as the published programs compute it
(benchmarks/plain_step.py); each row adds a lever to the one above, and the last is the step of the
config. All have the same weights and take the same batch in one process, in turns, so that whatever
else the machine does reaches all of them; the first rounds are left out.

    ms, samples/s  of the median step
    ratio          samples/s, to those of the plain step
    GFLOP          of convolutions and matrix products, of one sample, forward and backward
    TFLOP/s        those, by the time
    peak           that, to the speed of one large matrix product in the same precision (MFU)
    memory         peak of a process of its own that takes a few steps, above what it held before
                   the networks were built: of the CUDA device where there is one, else resident
    loss           of the first step: what the branches minimize, and the discriminator

Below stands how much of its time the last row waits for data, over steps with the real loader.
"""

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from acceleration import uncompiled
from benchmarks.plain_step import LEVERS, Lever, without
from benchmarks.steps import (
    build_trainer,
    first_batch,
    in_fresh_process,
    peak_memory,
    seconds,
    step_parser,
    take_step,
)
from benchmarks.tables import markdown_table
from cli import pick_device, positive_int, run_entry_point
from config import Config
from config_file import load_config, override_config
from datasets.loading import loaded_batches
from datasets.pairs import BatchSchedule, PairBatch
from errors import UserError
from files import replacing
from optimization import AUTOCAST_DTYPES
from training import Trainer

MIXES = 0.0  # the coin of a step, which mixes where it is below the probability
_WARM_UP = 2  # rounds, in which libraries choose their kernels and memory is allocated
_PEAK_SIZE = 4096  # rows of the matrices of the peak
_PREFETCHED = 2  # batches that each worker of the loader has ready


class Contestant(NamedTuple):
    """A trainer and the levers that it does without."""

    trainer: Trainer
    missing: list[Lever]

    def step(self, batch: PairBatch) -> dict[str, torch.Tensor]:
        """One update, which mixes where the config ever does; its scalars."""
        with without(self.missing):
            return take_step(self.trainer, batch, MIXES).scalars


def main(arguments: argparse.Namespace) -> None:
    if arguments.config is None:
        raise UserError("--config is missing: give a file, or a name such as vox-fomm.yaml")
    output = Path(arguments.output)
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; give a file")
    device = pick_device(arguments.device)
    config = load_config(arguments.config, arguments.overrides)
    rows = ladder(config)
    memory = {
        name: in_fresh_process(partial(memory_of_steps, config, name, arguments.device))
        if arguments.memory
        else None
        for name in rows
    }
    contestants = {
        name: build_contestant(config, missing, device) for name, missing in rows.items()
    }
    batch = first_batch(config).to(device)
    measured = measure(contestants, batch, arguments.rounds)
    table = [
        row_of_table(name, contestant, measured, memory[name], batch)
        for name, contestant in contestants.items()
    ]
    for row in table:
        row["ratio"] = table[0]["ms"] / row["ms"]
    report = {
        "config": arguments.config,
        "overrides": arguments.overrides,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "batch_size": config.train.batch_size,
        "rounds": arguments.rounds,
        "peak_tflops": {name: flops / 1e12 for name, flops in measured.peaks.items()},
        "rows": table,
        "waiting_for_data": time_waiting(contestants[table[-1]["row"]], arguments.loaded_steps),
    }
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    print(
        markdown_table([{name: _text(name, cell) for name, cell in row.items()} for row in table])
    )
    peaks = ", ".join(f"{name} {value:.3g}" for name, value in report["peak_tflops"].items())
    print(
        f"\npeak, TFLOP/s: {peaks}\nwaiting for data: {report['waiting_for_data']:.1%} of "
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


def build_contestant(config: Config, missing: list[Lever], device: torch.device) -> Contestant:
    """The step of `config` without some levers."""
    trainer = build_trainer(
        override_config(config, [override for lever in missing for override in lever.off]), device
    )
    for lever in missing:
        if lever.prepare is not None:
            lever.prepare(trainer)
    return Contestant(trainer, missing)


def memory_of_steps(config: Config, row: str, device_name: str) -> int | None:
    """Bytes that a few steps need above what is there before the networks are built; None where
    the system does not tell.
    """
    device = pick_device(device_name)
    batch = first_batch(config).to(device)
    before = peak_memory(device)
    contestant = build_contestant(config, ladder(config)[row], device)
    for _ in range(2):
        contestant.step(batch)
    after = peak_memory(device)
    return None if before is None or after is None else after - before


class Measured(NamedTuple):
    """Median seconds of a step, FLOP of a step, and the losses of the first, by row; FLOP/s of a
    matrix product, by precision.
    """

    seconds: dict[str, float]
    flops: dict[str, int]
    losses: dict[str, str]
    peaks: dict[str, float]


def measure(contestants: dict[str, Contestant], batch: PairBatch, num_rounds: int) -> Measured:
    """All in turns."""
    device = batch.frames.device
    losses, flops = {}, {}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    peaks: dict[str, list[float]] = {}
    for index in tqdm(range(1 + _WARM_UP + num_rounds), unit="round", disable=None):
        for name, contestant in contestants.items():
            train = contestant.trainer.config.train
            if index == 0:  # also counts
                with FlopCounterMode(display=False) as counter, uncompiled(train):
                    first = _show_losses(contestant.step(batch))
                flops[name] = counter.get_total_flops()
                losses[name] = first if train.compile == "none" else ""  # it was no compiled one
                continue
            taken = seconds(partial(contestant.step, batch), device)
            if index > _WARM_UP:
                times[name].append(taken)
        for precision in {c.trainer.config.train.precision for c in contestants.values()}:
            peaks.setdefault(precision, []).append(_peak(precision, device))
    return Measured(
        {name: statistics.median(found) for name, found in times.items()},
        flops,
        losses,
        {name: max(found) for name, found in sorted(peaks.items())},
    )


def _show_losses(scalars: dict[str, torch.Tensor]) -> str:
    names = ("loss/total", "discriminator_loss/total")
    return ", ".join(f"{float(scalars[name]):.6g}" for name in names if name in scalars)


def _peak(precision: str, device: torch.device) -> float:
    """FLOP/s of matrix products; in float32 as fast as convolutions may be."""
    dtype = AUTOCAST_DTYPES.get(precision, torch.float32)
    num_products = 1 if device.type == "cpu" else 20  # so that starting them counts for nothing
    a, b = torch.randn(2, _PEAK_SIZE, _PEAK_SIZE, device=device).to(dtype)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        taken = seconds(lambda: [a @ b for _ in range(num_products)], device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return num_products * 2 * _PEAK_SIZE**3 / taken


def row_of_table(
    name: str,
    contestant: Contestant,
    measured: Measured,
    memory: int | None,
    batch: PairBatch,
) -> dict[str, Any]:
    """See the file's docstring."""
    taken, speed = measured.seconds[name], measured.flops[name] / measured.seconds[name]
    return {
        "row": name,
        "ms": 1000 * taken,
        "samples/s": len(batch.frames) / taken,
        "ratio": 1.0,
        "GFLOP": measured.flops[name] / len(batch.frames) / 1e9,
        "TFLOP/s": speed / 1e12,
        "peak": speed / measured.peaks[contestant.trainer.config.train.precision],
        "memory_gib": None if memory is None else memory / 2**30,
        "loss": measured.losses[name],
    }


def time_waiting(contestant: Contestant, num_steps: int) -> float:
    """Share of the time of `num_steps` steps in which there was no batch yet."""
    trainer = contestant.trainer
    train, data = trainer.config.train, trainer.config.data
    schedule = BatchSchedule(len(trainer.pairs), train.batch_size, trainer.config.seed)
    waited, begun = 0.0, 0.0
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
            contestant.step(batch)
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
    parser = step_parser("benchmarks.train", __doc__, rounds=10, output="runs/train.json")
    parser.add_argument(
        "--loaded-steps",
        type=positive_int,
        default=100,
        help="steps with the real loader, in which waiting is timed (default: 100)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
