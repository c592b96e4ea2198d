"""When the parts of the model start to learn: at an epoch, or after a share of the run's steps.

Where time is limited, the number of steps of the run follows from the speed of its first steps.
"""

from datetime import datetime

from checkpoints.checkpoint import Checkpoint
from common.distributed import processes as distributed
from configs.schema import Config
from configs.section import Start
from logger import Logger
from training.time_limits import Pace, describe_forecast, make_forecast

_NOTABLE_CHANGE = 0.05  # relative change of the expected number of steps from which it is logged


class StartSchedule:
    """When each part of the model starts to learn in one run; the same in all processes.

    Attributes:
        planned_steps: steps that the run is expected to take in all. With a time limit it is None
            until the speed of the first steps is known.
    """

    def __init__(self, config: Config, last_step: int) -> None:
        self._config = config
        self._last_step = last_step
        self.planned_steps = last_step if config.train.max_minutes is None else None
        # Parts that had not started when the last forecast was made; None before the first one.
        self._waiting_at_forecast: frozenset[str] | None = None
        self._expected_steps = 0

    @property
    def by_share(self) -> list[Start]:
        """The starts that are given as a share of `planned_steps`."""
        return [start for start in self._config.starts.values() if start.share is not None]

    def restore(self, saved: Checkpoint) -> None:
        """Continue the schedule of `saved`.

        A part that has started stays started, even if the limits are now others, or if the saved
        run had no starts by share.
        """
        if saved.planned_steps is not None:
            self.planned_steps = saved.planned_steps
        elif self.by_share and not saved.untrained:
            self.planned_steps = saved.step

    def waiting(self, step: int, epoch: int, batch: int) -> frozenset[str]:
        """Config sections of the parts that did not learn in any of the first `step` steps.

        Args:
            epoch, batch: place of the step that follows those `step` steps.
        """
        place = (epoch, batch, self.planned_steps)
        starts = self._config.starts.items()
        return frozenset(name for name, start in starts if not start.has_learned(step, *place))

    def update(
        self, logger: Logger | None, pace: Pace, step: int, seconds: float, *, is_log_due: bool
    ) -> None:
        """With a time limit: forecast the number of steps, and log it if it is new.

        The first forecast, after the first steps, sets `planned_steps` for good. Another one is
        made once all parts of the model have started, since each of them makes a step slower.

        Args:
            step, seconds: steps that the run has taken so far, and their time.
            is_log_due: whether the progress bar gets a new forecast, too.
        """
        train, waiting = self._config.train, pace.waiting
        if train.max_minutes is None or not pace.is_known:
            return
        has_forecast = self._waiting_at_forecast is not None and (
            waiting or not self._waiting_at_forecast
        )
        if has_forecast and not is_log_due:
            return
        forecast = make_forecast(train, self._last_step, step, seconds, pace.seconds_per_step)
        if has_forecast:
            if logger is not None:
                logger.expect(forecast.num_steps)
            return
        before, self._waiting_at_forecast = self._expected_steps, waiting
        self._expected_steps = forecast.num_steps
        starts = []
        if self.planned_steps is None:
            (num_steps,) = distributed.largest(forecast.num_steps if distributed.is_main() else 0)
            self.planned_steps = int(num_steps)
            starts = self.by_share
        if logger is not None and abs(before - forecast.num_steps) > _NOTABLE_CHANGE * before:
            logger.expect(forecast.num_steps)
            logger.message(
                describe_forecast(
                    forecast, train, pace.seconds_per_step, step, starts, datetime.now()
                )
            )

    def report_late_starts(self, logger: Logger, batches_per_epoch: int) -> None:
        """Log a line for each part that starts at an epoch which the run does not reach."""
        for start in self._config.starts.values():
            if start.share is None and self._last_step <= start.epoch * batches_per_epoch:
                logger.message(
                    f"{start}, which this run, of {self._last_step} steps and "
                    f"{batches_per_epoch} in an epoch, does not reach"
                )

    def report_missed_starts(self, logger: Logger) -> None:
        """At the end of a run that was too short for a forecast: log a line for each part that
        starts by share, and so has not started.
        """
        if self.planned_steps is None:
            for start in self.by_share:
                logger.message(f"{start}, which this run ended too early to plan: it has not begun")
