"""Turns problems of a run into one line that says what to set: too little memory, a compiler that
fails, slow data, bad steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.distributed import processes as distributed
from common.errors import UserError, lacks_memory
from common.machine import num_cores
from common.speed_trial import HALF_DTYPES, is_emulated
from configs.schema import Config, DataConfig, TrainConfig


@contextmanager
def memory_advice(config: Config, num_samples: int) -> Iterator[None]:
    """Context manager: turns an out-of-memory error into a UserError that says what to set.

    Args:
        num_samples: samples of the batch in this process.

    Raises:
        UserError: there was not enough memory.
    """
    try:
        yield
    except RuntimeError as error:  # on CUDA torch.OutOfMemoryError, a subclass of it
        if not lacks_memory(error):
            raise
        raise UserError(_how_to_save_memory(config, num_samples)) from error


@contextmanager
def compile_advice(train: TrainConfig) -> Iterator[None]:
    """Context manager: turns an error of torch's compiler, or its absence, into a UserError.

    Raises:
        UserError: a network could not be compiled.
    """
    try:
        yield
    except RuntimeError as error:
        # The class is looked up only if something was compiled: its import takes a second.
        if train.compile == "none" or not isinstance(
            error, torch._dynamo.exc.BackendCompilerFailed
        ):
            raise
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"train.compile: {reason}; mend it, or set train.compile=none") from error


@contextmanager
def advice(config: Config, num_samples: int) -> Iterator[None]:
    """Context manager: turns out-of-memory and compiler errors into a UserError that says what to
    set; joins `memory_advice` and `compile_advice`.
    """
    with memory_advice(config, num_samples), compile_advice(config.train):
        yield


def _how_to_save_memory(config: Config, num_samples: int) -> str:
    """The message for too little memory; names only settings that would help."""
    train = config.train
    at_once = train.micro_batch or num_samples
    height, width = config.data.size
    cures = []
    if at_once > 1:
        needs_another = config.background and config.background.needing_another_sample
        sizes = range(2 if needs_another else 1, at_once // 2 + 1)
        cures += [f"train.micro_batch={n}" for n in sizes if num_samples % n == 0][-1:]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if train.precision not in HALF_DTYPES and not is_emulated("bf16", device):
        cures.append("train.precision=bf16")
    if not cures or at_once == 1:
        cures.append(f"data.image_size smaller than {height} x {width}")
    found = f"out of memory with {at_once} sample{'s' * (at_once > 1)} at a time; set "
    return found + ", or ".join(cures)


def data_warning(share: float, data: DataConfig, packed: bool, num_wanted: int) -> str:
    """Say what to do about the `share` of the time that a run spends waiting for data.

    Args:
        data: the section with the number of workers that really run.
        packed: whether the clips are packed.
        num_wanted: workers that the user asked for; on few cores fewer run.
    """
    each = " in each process" if distributed.world_size() > 1 else ""
    cores = f"{num_cores()} cores here"
    if data.num_workers < num_wanted:
        cure = f"data.num_workers: no more than {data.num_workers} fit beside the step ({cores})"
    else:
        cure = f"raise data.num_workers (now {data.num_workers}{each}; {cores})"
    if data.kind == "clips" and not packed:
        cure += (
            f", or pack the clips once (python -m datasets.prepare --input {data.root} --output "
            "FOLDER) and set data.root=FOLDER"
        )
    return f"data is the bottleneck, {share:.0%} of the time is spent waiting for it: {cure}"


def too_many_bad_steps(num_bad: int, limit: int, not_finite: list[str], newest: str) -> str:
    """The message that ends a run of which `num_bad` steps in a row, above `limit`, were skipped.

    Args:
        not_finite: names of the losses and statistics that were not finite since the last log.
        newest: names the newest checkpoint.
    """
    return (
        f"{num_bad} steps in a row were skipped for a loss or gradient that is not finite "
        f"(train.max_bad_steps: {limit}); not finite at the end: "
        f"{', '.join(not_finite) or 'nothing'}; {newest}; lower the learning rates or set "
        "train.clip_norm"
    )
