"""Means of scalars between two logs, and the speed of the steps."""

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from branches.branch import is_smallest
from training.distributed import processes as distributed

WARM_UP_STEPS = 20  # in which workers start and kernels are chosen; they say nothing about data
JUDGED_STEPS = 200  # after so many, once, whether data is the bottleneck:
MAX_DATA_SHARE = 0.1  # more of the time spent waiting for data


class RunningMeans:
    """Means of scalars over the steps since the last log, kept on the device; of some, as
    `is_smallest` says, the smallest value.

    Non-finite values are left out and counted, so that one bad step does not hide
    the curve and the guilty loss can be named. A name need not come in every step: a loss may
    start later.
    """

    def __init__(self) -> None:
        # One vector for each set of names that came together: few operations in a step.
        self.sums: dict[tuple[str, ...], Tensor] = {}  # 3 x names: total, finite, all
        self.minima: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's scalars."""
        stacked = torch.stack([value.detach().float() for value in values.values()])
        finite = torch.isfinite(stacked)
        row = torch.stack((torch.where(finite, stacked, 0.0), finite, torch.ones_like(stacked)))
        names = tuple(values)
        self.sums[names] = self.sums[names] + row if names in self.sums else row
        lowest = torch.where(finite, stacked, math.inf)
        for i, name in enumerate(names):
            if is_smallest(name):
                before = self.minima.get(name)
                self.minima[name] = lowest[i] if before is None else lowest[i].minimum(before)

    def read(self) -> tuple[dict[str, float], list[str]]:
        """Means and smallest values by name (NaN where none was finite) and the names that had
        non-finite values, over all processes.

        This is where the host waits for the device.
        """
        if not self.sums:
            return {}, []
        joined = torch.cat(list(self.sums.values()), dim=1)
        distributed.add_up(joined)
        totals: dict[str, tuple[float, float, float]] = {}
        names = [name for together in self.sums for name in together]
        for name, *row in zip(names, *joined.tolist(), strict=True):
            total, finite, count = totals.get(name, (0.0, 0.0, 0.0))
            totals[name] = (total + row[0], finite + row[1], count + row[2])
        means = {
            n: total / finite if finite else math.nan for n, (total, finite, _) in totals.items()
        }
        means |= {n: low if math.isfinite(low) else math.nan for n, low in self._lowest().items()}
        return means, [n for n, (_, finite, count) in totals.items() if finite < count]

    def clear(self) -> None:
        """Begin a new window."""
        self.sums, self.minima = {}, {}

    def _lowest(self) -> dict[str, float]:
        """Of all processes; infinite where none was finite."""
        if not self.minima:
            return {}
        lowest = torch.stack(list(self.minima.values())).tolist()
        negated = distributed.largest(*(-value for value in lowest))
        return {name: -value for name, value in zip(self.minima, negated, strict=True)}

    def collect(self) -> None:
        """Bring the sums of all processes together in rank 0, whose `state` then is that of all."""
        if distributed.world_size() == 1 or not self.sums:
            return
        for row in self.sums.values():
            distributed.add_up(row)
        for name, low in self._lowest().items():
            self.minima[name].fill_(low)
        if not distributed.is_main():
            self._forget()

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same window; see `collect`."""
        return {
            "sums": [[list(names), row.cpu()] for names, row in self.sums.items()],
            "minima": {name: value.cpu() for name, value in self.minima.items()},
        }

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from `state`, in all processes."""
        self.sums = {tuple(names): row.to(device) for names, row in state["sums"]}
        self.minima = {name: value.to(device) for name, value in state["minima"].items()}
        if not distributed.is_main():
            self._forget()

    def _forget(self) -> None:
        """Add nothing to what rank 0 knows. The names stay: processes exchange all or none."""
        self.sums = {names: torch.zeros_like(row) for names, row in self.sums.items()}
        self.minima = {n: torch.full_like(value, math.inf) for n, value in self.minima.items()}


@dataclass
class TimeSpan:
    """Some steps: how long they took, in seconds, and what of it they waited for data."""

    num_steps: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    def add(self, seconds: float, waiting: float) -> None:
        """Add one step."""
        self.num_steps += 1
        self.seconds += seconds
        self.waiting += waiting


class StepClock:
    """Speed of the steps, and whether data is their bottleneck. Processes take equally many steps,
    and each waits for the slowest: the longest wait for data counts, and rank 0's own time, which
    alone leaves its validation out.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        self.since_log, self.since_warm_up = TimeSpan(), TimeSpan()
        self.is_judged = False
        self.restart()

    def restart(self) -> None:
        """The next step begins now: leave out what came since the last (validation, pictures)."""
        self.begun = time.perf_counter()

    def step_done(self, waiting: float) -> None:
        """A step has ended, of which `waiting` seconds went by waiting for its data."""
        seconds = time.perf_counter() - self.begun
        self.restart()
        self.num_steps += 1
        self.since_log.add(seconds, waiting)
        if self.num_steps > WARM_UP_STEPS:
            self.since_warm_up.add(seconds, waiting)

    def speed(self, batch_size: int) -> dict[str, float]:
        """Throughput and share of time spent waiting for data since the last call, peak memory of
        this process so far; nothing where no step was timed.
        """
        spell, self.since_log = self.since_log, TimeSpan()
        if spell.num_steps == 0:
            return {}
        (waiting,) = distributed.largest(spell.waiting)
        return {
            "speed/steps_per_second": spell.num_steps / spell.seconds,
            "speed/samples_per_second": spell.num_steps * batch_size / spell.seconds,
            "speed/data_share": waiting / spell.seconds,
            "speed/memory_gib": _peak_memory() / 2**30,
        }

    def bottleneck(self) -> float | None:
        """Once, after `JUDGED_STEPS`: the share of time spent waiting for data, if it is large."""
        if self.is_judged or self.num_steps < JUDGED_STEPS:
            return None
        self.is_judged = True
        spell = self.since_warm_up
        (waiting,) = distributed.largest(spell.waiting)
        share = waiting / spell.seconds
        return share if share > MAX_DATA_SHARE else None


def _peak_memory() -> float:
    """Bytes: of the CUDA device where it is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return math.nan  # Windows has no getrusage
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
