"""Measures a run: means of scalars between two lines of the log, and the speed of the steps."""

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

WARM_UP_STEPS = 20  # in which workers start and kernels are chosen; waiting is not counted in them
STEPS_BEFORE_DATA_CHECK = 200  # then it is checked once whether data is the bottleneck:
MAX_DATA_SHARE = 0.1  # it is, if a larger share of the time is spent waiting for data


class RunningMeans:
    """Means of scalars over the steps since the last log, kept on the device. Scalars that
    `is_smallest` names are reduced to their minimum instead.

    Non-finite values are left out and counted, so that one bad step does not spoil the curve, and
    the log can name the loss that was not finite. A scalar may be missing in some steps, as a loss
    that starts later is.
    """

    def __init__(self) -> None:
        # One tensor for each set of names that comes in the same steps, so that a step takes few
        # operations. Its rows: sum of the finite values, number of finite values, number of all.
        self.sums: dict[tuple[str, ...], Tensor] = {}  # 3 x names
        self.minima: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the scalars of one step."""
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
        """Read the means and minima over all processes. The host waits for the device.

        Returns:
            Means and minima by name, NaN if no value was finite, and the names of scalars that
            had non-finite values.
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
        """Forget all values, after a line of the log."""
        self.sums, self.minima = {}, {}

    def _lowest(self) -> dict[str, float]:
        """The minima over all processes, by name; infinite if no value was finite."""
        if not self.minima:
            return {}
        lowest = torch.stack(list(self.minima.values())).tolist()
        negated = distributed.largest(*(-value for value in lowest))
        return {name: -value for name, value in zip(self.minima, negated, strict=True)}

    def collect(self) -> None:
        """Add the sums of all processes up in rank 0 and reset those of the others, so that the
        `state` of rank 0 is that of all processes.
        """
        if distributed.world_size() == 1 or not self.sums:
            return
        for row in self.sums.values():
            distributed.add_up(row)
        for name, low in self._lowest().items():
            self.minima[name].fill_(low)
        if not distributed.is_main():
            self._forget()

    def state(self) -> dict[str, Any]:
        """The sums and minima so far, for a checkpoint; call `collect` before."""
        return {
            "sums": [[list(names), row.cpu()] for names, row in self.sums.items()],
            "minima": {name: value.cpu() for name, value in self.minima.items()},
        }

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from `state`; call it in all processes.

        Raises:
            ValueError: a tensor has another shape than `state` would give it.
        """
        for names, row in state["sums"]:
            if row.shape != (3, len(names)):
                raise ValueError("the means of the log are of other shapes")
        if any(value.ndim for value in state["minima"].values()):
            raise ValueError("the minima of the log are of other shapes")
        self.sums = {tuple(names): row.to(device, torch.float32) for names, row in state["sums"]}
        self.minima = {n: value.to(device, torch.float32) for n, value in state["minima"].items()}
        if not distributed.is_main():
            self._forget()

    def _forget(self) -> None:
        """Reset all values, but keep the names: processes exchange values of the same names."""
        self.sums = {names: torch.zeros_like(row) for names, row in self.sums.items()}
        self.minima = {n: torch.full_like(value, math.inf) for n, value in self.minima.items()}


@dataclass
class TimeSpan:
    """Number of steps, the seconds that they took, and the part of these spent waiting for data."""

    num_steps: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    def add(self, seconds: float, waiting: float) -> None:
        """Add one step."""
        self.num_steps += 1
        self.seconds += seconds
        self.waiting += waiting


class StepClock:
    """Measures the speed of the steps, and whether data is their bottleneck.

    All processes take the same steps, and each waits for the slowest one. So the longest wait for
    data of all processes counts. Times are those of rank 0, since only its clock leaves out
    validation, for which the others wait.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        self.since_log, self.since_warm_up = TimeSpan(), TimeSpan()
        self.is_data_checked = False
        self.restart()

    def restart(self) -> None:
        """Start the next step's time now, to leave out validation and pictures."""
        self.begun = time.perf_counter()

    def step_done(self, waiting: float) -> None:
        """Add a step that ends now and has waited `waiting` seconds for its data."""
        seconds = time.perf_counter() - self.begun
        self.restart()
        self.num_steps += 1
        self.since_log.add(seconds, waiting)
        if self.num_steps > WARM_UP_STEPS:
            self.since_warm_up.add(seconds, waiting)

    def speed(self, batch_size: int) -> dict[str, float]:
        """Scalars for the log: throughput and share of the time spent waiting for data, both since
        the last call, and this process's peak memory so far. Empty if no step was timed.
        """
        span, self.since_log = self.since_log, TimeSpan()
        if span.num_steps == 0:
            return {}
        (waiting,) = distributed.largest(span.waiting)
        return {
            "speed/steps_per_second": span.num_steps / span.seconds,
            "speed/samples_per_second": span.num_steps * batch_size / span.seconds,
            "speed/data_share": waiting / span.seconds,
            "speed/memory_gib": _peak_memory() / 2**30,
        }

    def bottleneck(self) -> float | None:
        """The share of time spent waiting for data, if it is above `MAX_DATA_SHARE`, else None.

        It is checked once, at the first call after `STEPS_BEFORE_DATA_CHECK` steps.
        """
        if self.is_data_checked or self.num_steps < STEPS_BEFORE_DATA_CHECK:
            return None
        self.is_data_checked = True
        span = self.since_warm_up
        (waiting,) = distributed.largest(span.waiting)
        share = waiting / span.seconds
        return share if share > MAX_DATA_SHARE else None


def _peak_memory() -> float:
    """Peak memory in bytes: of the CUDA device if one is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return math.nan  # Windows has no getrusage
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
