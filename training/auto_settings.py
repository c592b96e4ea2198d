"""Replaces `auto` in a config by what this machine does best: precision, memory layout, threads."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from common.distributed import processes as distributed
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


class Resolved(NamedTuple):
    """A config in which every `auto` was replaced.

    line: the choices and their reasons, for the console.
    warnings: lines about a precision that is slow on this device, or other than before.
    record: the choices and their reasons, for commands.jsonl.
    """

    config: Config
    line: str
    warnings: list[str]
    record: dict[str, Any]


class _Choice(NamedTuple):
    """Precision and memory layout, each with the reason that is printed for it."""

    precision: Precision
    precision_reason: str
    channels_last: bool
    layout_reason: str


def resolve(config: Config, device: torch.device, so_far: Mapping[str, Any] | None) -> Resolved:
    """Replace every `auto` in `config`; all processes of a run choose the same.

    A resumed run keeps its precision and layout, so that rounding stays the same, unless this
    device can only emulate that precision. Also sets torch's number of threads on a CPU.

    Args:
        so_far: what `numerics` has returned for a resumed run; None for a new one.
    """
    threads = divide_cores(config.data.num_workers, is_cpu=device.type == "cpu")
    if device.type == "cpu":
        # Never more than torch's own default, which counts physical cores.
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
    """The settings that a resumed run needs to compute as before; for a config without `auto`."""
    return {"precision": config.train.precision, "channels_last": config.train.channels_last}


def _choose(config: Config, device: torch.device, so_far: Mapping[str, Any]) -> _Choice:
    """Choose for this process alone: what the config states, else as before, else by a trial."""
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
    """Shape of the generator's largest feature maps, for the batch of this process; the trial of
    memory layouts computes on maps of this size.
    """
    batch = config.train.micro_batch or config.train.batch_size // distributed.world_size()
    if config.motion is not None:
        width = config.motion.full_width
    else:
        assert config.masks is not None  # the config's rules require one of them
        width = config.masks.high_resolution.width
    return Shape(max(1, batch), width, max(config.data.size))


def _agreed(choice: _Choice) -> _Choice:
    """Make the choice the same in all processes, whose trials may have ended differently."""
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
    """Lines about a precision that this device emulates, or that a resumed run changes."""
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
    """One line about the choices, for the console."""
    layout = "channels-last" if choice.channels_last else "planar"
    workers = _count(threads.num_workers, "worker")
    return (
        f"{choice.precision} ({choice.precision_reason}), {layout} memory "
        f"({choice.layout_reason}); {_count(threads.num_threads, 'thread')} and {workers} for data "
        f"on {_count(num_cores(), 'core')}"
    )


def _count(number: int, noun: str) -> str:
    """`number` and `noun`, with an s where it is not 1."""
    return f"{number} {noun}{'s' * (number != 1)}"
