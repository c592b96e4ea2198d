"""Time limits of a run: how many steps fit into them, by the measured time of a step."""

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from configs.schema import TrainConfig
from configs.section import Start

_NUM_MEASURED = 12  # steps whose times are averaged
_NUM_IGNORED = 3  # first steps, in which libraries choose kernels and workers start


class Pace:
    """Mean time of a step, over the latest steps that all trained the same parts of the model."""

    def __init__(self) -> None:
        self.waiting: frozenset[str] | None = None  # parts that these steps did not train
        self._seconds: deque[float] = deque(maxlen=_NUM_MEASURED)
        self._num_steps = 0

    def step_done(self, seconds: float, waiting: frozenset[str]) -> None:
        """Add a step that took `seconds` and did not train the parts `waiting`.

        If these parts are others than in the step before, the mean starts anew.
        """
        if waiting != self.waiting:
            self.waiting, self._num_steps = waiting, 0
            self._seconds.clear()
        self._num_steps += 1
        if self._num_steps > _NUM_IGNORED:
            self._seconds.append(seconds)

    @property
    def is_known(self) -> bool:
        """Whether enough steps were taken for a mean."""
        return len(self._seconds) == _NUM_MEASURED

    @property
    def seconds_per_step(self) -> float:
        """The mean time of a step; only defined where `is_known`."""
        return sum(self._seconds) / len(self._seconds)


class Forecast(NamedTuple):
    """Expected length of a run.

    num_steps: steps that the whole run will take.
    seconds_left: seconds from now to the last step.
    num_in_time: steps that fit into train.max_minutes; None without that limit.
    is_short: whether the time limit ends the run before train.min_steps.
    """

    num_steps: int
    seconds_left: float
    num_in_time: int | None
    is_short: bool


def make_forecast(
    train: TrainConfig, last_step: int, step: int, seconds: float, seconds_per_step: float
) -> Forecast:
    """Forecast the length of a run that has taken `step` steps.

    Args:
        last_step: where epochs and train.max_steps end the run.
        seconds: time that the run has taken so far.
        seconds_per_step: time that each of the next steps is expected to take.
    """

    def fitting(minutes: float | None) -> int:
        if minutes is None:
            return last_step
        return step + max(0, int((60 * minutes - seconds) / seconds_per_step))

    num_in_time = None if train.max_minutes is None else fitting(train.max_minutes)
    num_steps = last_step if num_in_time is None else num_in_time
    if num_in_time is not None and train.min_steps is not None and num_in_time < train.min_steps:
        longer = train.min_steps if train.min_steps_minutes is None else fitting(_longest(train))
        num_steps = max(num_in_time, min(train.min_steps, longer))
    num_steps = min(num_steps, last_step)
    is_short = train.min_steps is not None and num_steps < min(train.min_steps, last_step)
    return Forecast(num_steps, (num_steps - step) * seconds_per_step, num_in_time, is_short)


def time_is_up(train: TrainConfig, step: int, seconds: float) -> bool:
    """Whether a time limit ends a run that has taken `step` steps in `seconds`."""
    if train.max_minutes is None or seconds < 60 * train.max_minutes:
        return False
    if train.min_steps is None or step >= train.min_steps:
        return True
    return train.min_steps_minutes is not None and seconds >= 60 * _longest(train)


def _longest(train: TrainConfig) -> float:
    """The time limit, in minutes, of a run that has not taken train.min_steps steps yet."""
    return max(train.max_minutes or 0.0, train.min_steps_minutes or 0.0)


def describe_forecast(
    forecast: Forecast,
    train: TrainConfig,
    seconds_per_step: float,
    step: int,
    starts: Iterable[Start],
    now: datetime,
) -> str:
    """Describe `forecast`, made after `step` steps, in one line for the user.

    Args:
        starts: the starts whose step follows from the forecast; the line states that step.
        now: the time of the forecast.
    """
    end = now + timedelta(seconds=forecast.seconds_left)
    line = f"{seconds_per_step:.2g} s a step: "
    if forecast.num_in_time is not None and forecast.num_in_time < forecast.num_steps:
        limit = "" if train.min_steps_minutes is None else f" (at most {_longest(train):g} minutes)"
        line += (
            f"only about {forecast.num_in_time} steps fit into train.max_minutes, "
            f"{train.max_minutes:g}; training goes on to about {forecast.num_steps}{limit}"
        )
        if forecast.is_short:
            line += f", fewer than train.min_steps, {train.min_steps}: expect little of the result"
    else:
        line += f"about {forecast.num_steps} steps"
        if forecast.num_in_time == forecast.num_steps:
            line += f" fit into train.max_minutes, {train.max_minutes:g}"
    line += f"; done at about {end:%H:%M}"
    for start in starts:
        first = start.first_step(forecast.num_steps)
        line += f"; {start.section} starts " + (f"after step {first}" if first > step else "now")
    return line
