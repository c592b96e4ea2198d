"""What `auto` in a config means on this machine: precision, memory layout, threads."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from common.machine import Threads, divide_cores, num_cores
from common.speed_trial import (
    HALF_DTYPES,
    Precision,
    Shape,
    choose_precision,
    emulation_warning,
    is_usable,
    prefers_channels_last,
)
from configs.schema import Config
from training.distributed import processes as distributed


class Resolved(NamedTuple):
    """A config without `auto`.

    line: what was chosen, and why; for the console.
    warnings: lines on what was asked for and is slow here, or on numbers that change.
    record: the choices and their reasons, for the run's record.
    """

    config: Config
    line: str
    warnings: list[str]
    record: dict[str, Any]


class _Choice(NamedTuple):
    precision: Precision
    precision_reason: str
    channels_last: bool
    layout_reason: str


def resolve(config: Config, device: torch.device, so_far: Mapping[str, Any] | None) -> Resolved:
    """Choose how this process computes; all processes of a run choose the same.

    A resumed run goes on as it began, so that its numbers stay of one kind, unless it was in a
    precision that this device can only emulate.

    Args:
        so_far: of a resumed run, what `numerics` has returned.
    """
    threads = divide_cores(config.data.num_workers, is_cpu=device.type == "cpu")
    if device.type == "cpu":
        # Never more than torch takes by itself, which counts the cores that compute.
        threads = threads._replace(num_threads=min(threads.num_threads, torch.get_num_threads()))
        torch.set_num_threads(threads.num_threads)
    else:
        threads = threads._replace(num_threads=torch.get_num_threads())
    choice = _agreed(_choose(config, device, so_far or {}))
    train = config.train.model_copy(
        update={"precision": choice.precision, "channels_last": choice.channels_last}
    )
    data = config.data.model_copy(update={"num_workers": threads.num_workers})
    resolved = config.model_copy(update={"train": train, "data": data})
    record = {
        "precision": choice.precision,
        "precision_reason": choice.precision_reason,
        "channels_last": choice.channels_last,
        "channels_last_reason": choice.layout_reason,
        **threads._asdict(),
    }
    return Resolved(
        resolved, _describe(choice, threads), _warnings(config, choice, device, so_far), record
    )


def numerics(config: Config) -> dict[str, Any]:
    """What a resumed run needs to compute as before; of a config without `auto`."""
    return {"precision": config.train.precision, "channels_last": config.train.channels_last}


def _choose(config: Config, device: torch.device, so_far: Mapping[str, Any]) -> _Choice:
    train, before = config.train, so_far.get("precision")
    precision: Precision
    if train.precision != "auto":
        precision, reason = train.precision, "as train.precision says"
    elif before is not None and is_usable(before, device):
        precision, reason = before, "as before"
    else:
        precision, reason = choose_precision(device)
    if train.channels_last != "auto":
        return _Choice(precision, reason, train.channels_last, "as train.channels_last says")
    if precision == before and so_far.get("channels_last") is not None:
        return _Choice(precision, reason, so_far["channels_last"], "as before")
    return _Choice(
        precision, reason, *prefers_channels_last(precision, device, _largest_maps(config))
    )


def _largest_maps(config: Config) -> Shape:
    """Of the generator that paints, in this process."""
    batch = config.train.micro_batch or config.train.batch_size // distributed.world_size()
    if config.motion is not None:
        width = config.motion.full_width
    else:
        assert config.masks is not None  # the config's rules require one of them
        width = config.masks.high_resolution.width
    return Shape(max(1, batch), width, max(config.data.size))


def _agreed(choice: _Choice) -> _Choice:
    """The same in all processes, which may have found differently."""
    precisions = distributed.gather(choice.precision)
    layouts = distributed.gather(choice.channels_last)
    if len(set(precisions)) > 1:
        choice = choice._replace(precision="float32", precision_reason="processes differ")
    if len(set(layouts)) > 1:
        choice = choice._replace(channels_last=layouts[0], layout_reason="as rank 0 has found")
    return choice


def _warnings(
    config: Config, choice: _Choice, device: torch.device, so_far: Mapping[str, Any] | None
) -> list[str]:
    warnings = []
    if config.train.precision in HALF_DTYPES:
        slow = emulation_warning("train.precision", choice.precision, device)
        warnings += [] if slow is None else [slow]
    before = choice.precision if so_far is None else so_far["precision"]
    if choice.precision != before:
        warnings.append(
            f"train.precision: changes from {before}, in which this run was trained so far, to "
            f"{choice.precision} ({choice.precision_reason})"
        )
    return warnings


def _describe(choice: _Choice, threads: Threads) -> str:
    layout = "channels-last" if choice.channels_last else "planar"
    workers = _count(threads.num_workers, "worker")
    return (
        f"{choice.precision} ({choice.precision_reason}), {layout} memory "
        f"({choice.layout_reason}); {_count(threads.num_threads, 'thread')} and {workers} for data "
        f"on {_count(num_cores(), 'core')}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
