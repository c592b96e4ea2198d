"""Tools of the benchmarks of training: build the training step as train.py does, and time it."""

import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch

from branches.branch import StepContext
from branches.model import Model
from checkpoints.perceptual_weights import load_perceptual
from common.batch_random import BatchRandom
from common.cli import add_device_argument, positive_int
from common.errors import UserError
from common.speed_trial import is_emulated
from configs.loading import override_config
from configs.schema import Config
from datasets.build import build_pairs, build_source
from datasets.pairs import PairBatch, SampleIndex, collate
from training.adversary import build_adversary
from training.auto_settings import resolve
from training.step import StepResult, train_step
from training.trainer import Trainer

Result = TypeVar("Result")

_LATE = 1e9  # epochs, after which every part has started and every warm-up is over


def build_trainer(config: Config, device: torch.device) -> Trainer:
    """Build a trainer for single steps, with networks, optimizer and losses. Its `run` must not be
    called; it writes nothing.
    """
    config = resolve(config, device, None).config
    return Trainer(
        config,
        Model(config),
        build_adversary(config),
        load_perceptual(config),
        build_pairs(config),
        build_source(config.data, "test"),
        device,
        Path(),
    )


def without_auto(config: Config, device: torch.device) -> Config:
    """Replace `auto` in `config` by what this device does best, and print the choices.

    A precision that the device emulates is replaced by float32, since it would take hours.
    """
    if is_emulated(config.train.precision, device):
        print(
            f"left out: train.precision {config.train.precision}, which is emulated on this device"
        )
        config = override_config(config, ["train.precision=float32"])
    resolved = resolve(config, device, None)
    print(resolved.line)
    return resolved.config


def first_batch(config: Config) -> PairBatch:
    """A batch of the first samples of the first epoch, on the CPU."""
    pairs = build_pairs(config)
    return collate([pairs[SampleIndex(0, sample)] for sample in range(config.train.batch_size)])


def take_step(trainer: Trainer, batch: PairBatch, host_random: float) -> StepResult:
    """Take one training step, as if all parts had started and every warm-up were over. All steps
    have the same random numbers.

    Args:
        host_random: see `StepContext`; decides whether the step mixes images.
    """
    return train_step(
        trainer.model,
        trainer.adversary,
        trainer.optimizer,
        trainer.perceptual,
        batch,
        StepContext(
            _LATE, BatchRandom(torch.Generator(trainer.device).manual_seed(0)), host_random
        ),
        trainer.config,
    )


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds that `call` takes, with the work that it starts on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def in_fresh_process(measure: Callable[[], Result]) -> Result:
    """Call `measure` in a fresh process, whose memory no earlier work has enlarged.

    Args:
        measure: a function of a module, or a partial of one, since it is pickled.

    Raises:
        UserError: the system has killed the process.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        try:
            return executor.submit(_with_threads, torch.get_num_threads(), measure).result()
        except BrokenProcessPool as error:
            raise UserError(
                "the system has ended a process of the benchmark, most likely for its memory; "
                "make the batches smaller"
            ) from error


def _with_threads(num_threads: int, measure: Callable[[], Result]) -> Result:
    torch.set_num_threads(num_threads)
    return measure()


def peak_memory(device: torch.device) -> int | None:
    """Peak memory of this process so far, in bytes: of the CUDA device if one is used, else
    resident; None if the system does not report it.

    It does not use getrusage, since on Linux a new process starts with the peak of its parent.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def memory_above(before: int | None, device: torch.device) -> int | None:
    """Bytes by which the peak memory has grown since `peak_memory` said `before`.

    Linux counts roughly, and its peak may even shrink by some pages; this is 0, then.
    """
    after = peak_memory(device)
    return None if before is None or after is None else max(0, after - before)


def step_parser(program: str, description: str, rounds: int, output: str) -> ArgumentParser:
    """The options that every benchmark of the training step has.

    Args:
        rounds, output: the defaults of --rounds and --output.
    """
    parser = ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="a YAML file, or the name of one in configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="change keys of the config"
    )
    parser.add_argument(
        "--rounds",
        type=positive_int,
        default=rounds,
        help=f"rounds, in each of which every row or kind has a turn (default: {rounds})",
    )
    parser.add_argument("--output", metavar="FILE.json", default=output, help=f"default: {output}")
    add_device_argument(parser)
    return parser
