"""How many steps a run will take, and which parts of the model have started: by epochs, or by
shares of a plan that follows from the speed of the first steps.
"""

from datetime import datetime

from checkpoints.checkpoint import Checkpoint
from configs.schema import Config
from configs.section import Start
from logger import Logger
from training.distributed import processes as distributed
from training.time_plan import Pace, describe_plan, make_plan

_NEWS = 0.05  # a change of the expected number of steps that is worth a line


class RunPlan:
    """The plan of one run, in all processes the same.

    Attributes:
        num_steps: of the whole run. Where time is limited it follows from the speed of the first
            steps, and is None before.
    """

    def __init__(self, config: Config, last_step: int) -> None:
        self._config = config
        self._last_step = last_step
        self.num_steps = last_step if config.train.max_minutes is None else None
        self._made_with: frozenset[str] | None = None  # what had not started when it was made
        self._expected_steps = 0

    @property
    def starts(self) -> list[Start]:
        """Those that follow from the plan."""
        return [start for start in self._config.starts.values() if start.share is not None]

    def restore(self, saved: Checkpoint) -> None:
        """Go on from `saved`: what has started stays so, whatever the limits are now; also in a run
        that had no shares.
        """
        if saved.planned_steps is not None:
            self.num_steps = saved.planned_steps
        elif self.starts and not saved.untrained:
            self.num_steps = saved.step

    def waiting(self, step: int, epoch: int, batch: int) -> frozenset[str]:
        """Sections of the config whose part has not learned from the first `step` steps, behind
        which stands the step of this place.
        """
        place = (epoch, batch, self.num_steps)
        starts = self._config.starts.items()
        return frozenset(name for name, start in starts if not start.has_learned(step, *place))

    def update(
        self, logger: Logger | None, pace: Pace, step: int, seconds: float, *, is_log_due: bool
    ) -> None:
        """Where time is limited: plan the run after its first steps and say so; say it again if it
        changes when all parts of the model, which take their time too, have started.

        Args:
            step, seconds: that the run has taken so far.
        """
        train, waiting = self._config.train, pace.waiting
        if train.max_minutes is None or not pace.is_known:
            return
        is_planned = self._made_with is not None and (waiting or not self._made_with)
        if is_planned and not is_log_due:
            return
        plan = make_plan(train, self._last_step, step, seconds, pace.seconds_per_step)
        if is_planned:
            if logger is not None:
                logger.expect(plan.num_steps)
            return
        before, self._made_with = self._expected_steps, waiting
        self._expected_steps = plan.num_steps
        starts = []
        if self.num_steps is None:
            (num_steps,) = distributed.largest(plan.num_steps if distributed.is_main() else 0)
            self.num_steps = int(num_steps)
            starts = self.starts
        if logger is not None and abs(before - plan.num_steps) > _NEWS * before:
            logger.expect(plan.num_steps)
            logger.message(
                describe_plan(plan, train, pace.seconds_per_step, step, starts, datetime.now())
            )

    def tell_late_starts(self, logger: Logger, batches_per_epoch: int) -> None:
        """A line for each part that starts by epochs, which the run does not reach."""
        for start in self._config.starts.values():
            if start.share is None and self._last_step <= start.epoch * batches_per_epoch:
                logger.message(
                    f"{start}, which this run, of {self._last_step} steps and "
                    f"{batches_per_epoch} in an epoch, does not reach"
                )

    def tell_missed_starts(self, logger: Logger) -> None:
        """A line for each part that starts by the plan, where there is none at the end."""
        if self.num_steps is None:
            for start in self.starts:
                logger.message(f"{start}, which this run ended too early to plan: it has not begun")
