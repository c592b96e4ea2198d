"""The loop around the training step: a run from its first step to its last.

With several processes every one of them has a Trainer and takes every step; what is there once,
the log, validation and checkpoints, is up to rank 0. The others meet it again in the next step.
"""

import math
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import torch
from torch import nn

import checkpoint
import distributed
from acceleration import compile_networks, prepare_networks, uncompiled
from adversary import Adversary
from advice import advice
from auto_settings import numerics
from branches.branch import StepContext, StepInputs
from checkpoint import Checkpoint
from cli import caught_signals
from config import Config, Start
from datasets.loading import loaded_batches
from datasets.packed import PackedClips
from datasets.pairs import BatchSchedule, FailureBudget, FramePairs, PairBatch
from datasets.source import ClipSource
from errors import UserError
from logger import Logger, RunningMeans, StepClock, data_warning
from losses import Perceptual
from machine import keep_freed_memory
from model import Model
from modules.draws import BatchRandom
from optimization import MovingAverage, Optimizer
from seeding import numpy_rng, torch_seed
from sync_batch_norm import synchronize_batch_norm
from time_plan import Pace, describe_plan, make_plan, time_is_up
from training_step import train_step
from validation import draw_grids, judge_model, run_branches

_NEWS = 0.05  # a change of the expected number of steps that is worth a line


class Trainer:
    """A run: model, optimizer, data and log, from a first step to the last.

    Args:
        config: without `auto`; see `auto_settings.resolve`.
        stated_config: what checkpoints keep: the config as it was given, for other machines too.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        adversary: Adversary | None,
        perceptual: Perceptual,
        pairs: FramePairs,
        test_clips: ClipSource,
        device: torch.device,
        output_dir: Path,
        stated_config: Config | None = None,
    ) -> None:
        self.config = config
        self.stated_config = config if stated_config is None else stated_config
        self.device = device
        self.output_dir = output_dir
        self.model = model.to(device).train()
        self.adversary = adversary if adversary is None else adversary.to(device).train()
        self.perceptual = perceptual.to(device).eval()
        self.num_own_samples = config.train.batch_size // distributed.world_size()
        if distributed.world_size() > 1:
            synchronize_batch_norm(self.model, device)
            self._copy_from_main()
        prepare_networks(self.model, self.adversary, self.perceptual, config.train)
        if device.type == "cpu":
            keep_freed_memory()
        self.pairs = pairs
        self.test_clips = test_clips
        self.optimizer = Optimizer(self.model, self.adversary, config, device)
        decay = config.train.ema_decay
        self.average = None  # it is for validation and checkpoints
        if decay is not None and distributed.is_main():
            self.average = MovingAverage(self.model, decay)
        # Last: copies of compiled networks would still run the original ones.
        compile_networks(self.model, self.adversary, self.perceptual, config.train)
        self.failures = FailureBudget(len(pairs.clips.clips))
        self.batches_per_epoch = len(pairs) // config.train.batch_size
        self.last_step = self.batches_per_epoch * config.train.epochs
        if config.train.max_steps is not None:
            self.last_step = min(self.last_step, config.train.max_steps)
        self.step = self.epoch = self.batch = 0  # steps done; place of the next one
        # Where time is limited they follow from the speed of the first steps.
        self.planned_steps = self.last_step if config.train.max_minutes is None else None
        self.planned_with: frozenset[str] | None = None  # what had not started when it was planned
        self.expected_steps = 0
        self.seconds = 0.0  # by the clock so far, earlier parts of a resumed run included
        self.best_l1 = math.inf
        self.validated_at = self.saved_at = -1  # steps
        self.metrics: dict[str, float] = {}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Everything that is trained, by name."""
        return self.model.networks | (self.adversary.networks if self.adversary is not None else {})

    def _copy_from_main(self) -> None:
        """Begin with the weights of rank 0: what another machine draws may differ in rounding."""
        networks = [n for n in (self.model, self.adversary, self.perceptual) if n is not None]
        tensors = [t for n in networks for t in (*n.parameters(), *n.buffers())]
        distributed.copy_from_main([t for t in tensors if t.is_floating_point()])

    def restore(self, saved: Checkpoint) -> None:
        """Continue exactly where `saved` was written."""
        checkpoint.load_networks(self.networks, saved.networks, saved.path)
        self.optimizer.load_state(saved.training["optimizer"])
        if self.average is not None and saved.average is not None:
            self.average.load_state(saved.average)
        self.step, self.epoch, self.batch = saved.step, saved.epoch, saved.batch
        if self.batch >= self.batches_per_epoch:  # the data or the batch size has changed
            self.epoch, self.batch = self.epoch + 1, 0
        # What has started stays so, whatever the limits are now; also in a run that had no shares.
        if saved.planned_steps is not None:
            self.planned_steps = saved.planned_steps
        elif self._starts_by_share() and not saved.untrained:
            self.planned_steps = saved.step
        self.seconds = saved.training["seconds"]
        if checkpoint.best_path(self.output_dir).exists():  # else the best lies in another run
            self.best_l1 = saved.training["best_l1"]
        if saved.metrics:
            self.metrics, self.validated_at = saved.metrics, saved.step
        if saved.path == checkpoint.step_path(self.output_dir, saved.step):
            self.saved_at = saved.step

    def save(self) -> Path:
        """Write a checkpoint of this step and drop the ones that are too old."""
        path = checkpoint.step_path(self.output_dir, self.step)
        checkpoint.save(
            path,
            self.stated_config,
            self.networks,
            step=self.step,
            epoch=self.epoch,
            batch=self.batch,
            planned_steps=self.planned_steps if self._starts_by_share() else None,
            average=self.average.state() if self.average is not None else None,
            training={
                "optimizer": self.optimizer.state(),
                "seconds": self.seconds,
                "best_l1": self.best_l1,
                "numerics": numerics(self.config),
            },
            metrics=self.metrics if self.validated_at == self.step else {},
        )
        checkpoint.prune(path, self.config.train.keep_checkpoints)
        self.saved_at = self.step
        return path

    def run(self) -> int | None:
        """Train to the end, or until a signal or the time limit, and leave a checkpoint.

        Returns:
            The number of the signal that ended the run, None if nothing did.

        Raises:
            UserError: too many bad steps or unreadable clips.
        """
        logger = None
        if distributed.is_main():
            logger = Logger(self.output_dir, self.step, self.last_step)
            self._tell_late_starts(logger)
        try:
            schedule = BatchSchedule(
                len(self.pairs),
                self.config.train.batch_size,
                self.config.seed,
                self.epoch,
                self.batch,
                distributed.rank(),
                distributed.world_size(),
            )
            num_workers, pin_memory = self.config.data.num_workers, self.device.type == "cuda"
            with (
                caught_signals() as caught,
                loaded_batches(self.pairs, schedule, num_workers, pin_memory) as batches,
            ):
                try:
                    with advice(self.config, self.num_own_samples):
                        self._run_steps(logger, batches, caught)
                except distributed.PeerLost:  # perhaps in the middle of a step
                    raise
                except UserError:
                    is_new = self.step > 0 and self.saved_at != self.step
                    if distributed.is_main() and is_new and not self._is_bad():
                        self.save()
                    raise
            if logger is not None:
                with advice(self.config, self.num_own_samples):
                    self._finish(logger, caught)
            return caught[0] if caught else None
        finally:
            if logger is not None:
                logger.close()

    def _tell_late_starts(self, logger: Logger) -> None:
        for start in self.config.starts.values():
            if start.share is None and self.last_step <= start.epoch * self.batches_per_epoch:
                logger.message(
                    f"{start}, which this run, of {self.last_step} steps and "
                    f"{self.batches_per_epoch} in an epoch, does not reach"
                )

    def _finish(self, logger: Logger, caught: list[int]) -> None:
        """Leave a checkpoint and, unless a signal ended the run, a validation of the last step."""
        if caught:
            self.save()
            name = signal.Signals(caught[0]).name
            logger.message(f"{name}: saved step {self.step}; continue with --resume")
            return
        if self.planned_steps is None:
            for start in self._starts_by_share():
                logger.message(f"{start}, which this run ended too early to plan: it has not begun")
        if self.saved_at != self.step:
            self.save()
        if self.validated_at != self.step:
            with uncompiled(self.config.train):
                self._validate(logger)
            self.save()  # again, with the metrics

    def _run_steps(
        self, logger: Logger | None, batches: Iterator[PairBatch], caught: list[int]
    ) -> None:
        config, means, clock, pace = self.config, RunningMeans(), StepClock(), Pace()
        draws_part = (distributed.rank(), distributed.world_size())
        generator = torch.Generator(self.device)
        logged_at = self.step
        begun = time.perf_counter() - self.seconds
        while self.step < self.last_step and not self._is_ended(caught):
            with distributed.shared_errors():
                started = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - started
            for line in self.failures.note(batch.unreadable):
                distributed.report(line)
            self.optimizer.set_epoch(self.epoch)
            result = train_step(
                self.model,
                self.adversary,
                self.optimizer,
                self.perceptual,
                batch.to(self.device),
                self._context(generator, *draws_part),
                config,
            )
            if self.average is not None:
                self.average.update(self.model)
            means.add(result.scalars)
            self._advance()
            clock.step_done(waited)
            if logger is not None:
                logger.step_done()
            pace.step_done(time.perf_counter() - started, self._waiting(self.step))
            self._plan(logger, pace, begun)

            if self._is_due(config.log.scalars_every):
                self._log(logger, means, clock)
                logged_at = self.step
            if logger is not None:
                self._draw_validate_save(logger, result.inputs, clock)
            self.seconds = time.perf_counter() - begun
        if self.step > logged_at:  # a last, shorter window
            self._log(logger, means, clock)

    def _plan(self, logger: Logger | None, pace: Pace, begun: float) -> None:
        """Where time is limited: plan the run after its first steps and say so; say it again if it
        changes when all parts of the model, which take their time too, have started.
        """
        train, waiting = self.config.train, pace.waiting
        if train.max_minutes is None or not pace.is_known:
            return
        is_planned = self.planned_with is not None and (waiting or not self.planned_with)
        if is_planned and not self._is_due(self.config.log.scalars_every):
            return
        seconds = time.perf_counter() - begun
        plan = make_plan(train, self.last_step, self.step, seconds, pace.seconds_per_step)
        if is_planned:
            if logger is not None:
                logger.expect(plan.num_steps)
            return
        before, self.planned_with = self.expected_steps, waiting
        self.expected_steps = plan.num_steps
        starts = []
        if self.planned_steps is None:
            (num_steps,) = distributed.largest(plan.num_steps if distributed.is_main() else 0)
            self.planned_steps = int(num_steps)
            starts = self._starts_by_share()
        if logger is not None and abs(before - plan.num_steps) > _NEWS * before:
            logger.expect(plan.num_steps)
            logger.message(
                describe_plan(plan, train, pace.seconds_per_step, self.step, starts, datetime.now())
            )

    def _starts_by_share(self) -> list[Start]:
        """Those that follow from the plan."""
        return [start for start in self.config.starts.values() if start.share is not None]

    def _waiting(self, step: int) -> frozenset[str]:
        """Sections of the config whose part has not learned from the first `step` steps; `step` is
        the number of those done, or one more.
        """
        place = (self.epoch, self.batch + step - self.step, self.planned_steps)
        starts = self.config.starts.items()
        return frozenset(name for name, start in starts if not start.has_learned(step, *place))

    def _draw_validate_save(self, logger: Logger, inputs: StepInputs, clock: StepClock) -> None:
        """Pictures, validation and checkpoint, where they are due after this step."""
        draws, validates = map(
            self._is_due, (self.config.log.images_every, self.config.log.validate_every)
        )
        if draws or validates:
            with uncompiled(self.config.train):
                if draws:
                    self._draw(logger, "train", inputs)
                if validates:
                    self._validate(logger)
            clock.restart()
        if (
            self._is_due(self.config.train.checkpoint_every)
            and self.saved_at != self.step
            and not self._is_bad()
        ):
            self.save()

    def _context(
        self, generator: torch.Generator, part: int = 0, num_parts: int = 1
    ) -> StepContext:
        """This step's, with `generator` seeded for it; of part `part` of the batch."""
        place = (self.config.seed, self.step)
        return StepContext(
            self.epoch + self.batch / self.batches_per_epoch,
            BatchRandom(generator.manual_seed(torch_seed("step", *place)), part, num_parts),
            numpy_rng("coin", *place).random(),
            self._waiting(self.step + 1),
        )

    def _advance(self) -> None:
        self.step += 1
        self.batch += 1
        if self.batch == self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0

    def _is_bad(self) -> bool:
        """Whether the last step was skipped: the weights it was taken from may be broken."""
        return bool(self.optimizer.last_step_bad)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0

    def _is_ended(self, caught: list[int]) -> bool:
        """Whether a signal that any process has caught, or the time limit, ends the run here."""
        time_is_up = distributed.is_main() and self._time_is_up()
        signals, ends = distributed.largest(caught[0] if caught else 0, time_is_up)
        if signals and not caught:
            caught.append(int(signals))
        return bool(signals or ends)

    def _time_is_up(self) -> bool:
        return time_is_up(self.config.train, self.step, self.seconds)

    def _log(self, logger: Logger | None, means: RunningMeans, clock: StepClock) -> None:
        values, not_finite = means.read()
        values |= {f"learning_rate/{n}": rate for n, rate in self.optimizer.current_rates().items()}
        values["epoch"] = self.epoch + self.batch / self.batches_per_epoch
        values["bad_steps"] = float(self.optimizer.bad_steps)
        values["clipped_steps"] = float(self.optimizer.clipped_steps)
        num_bad = int(self.optimizer.bad_in_a_row)
        values |= clock.speed(self.config.train.batch_size)
        data_share = clock.bottleneck()
        if logger is not None:
            logger.scalars(self.step, values)
            logger.status(self.step, values)
            if data_share is not None:
                packed = isinstance(self.pairs.clips, PackedClips)
                num_wanted = self.stated_config.data.num_workers
                logger.message(data_warning(data_share, self.config.data, packed, num_wanted))
        self.failures.failed.update(*distributed.gather(self.failures.failed))
        if message := self.failures.excess():
            raise distributed.common_error(message)
        if num_bad > self.config.train.max_bad_steps:
            saved = checkpoint.list_steps(self.output_dir)
            raise distributed.common_error(
                f"{num_bad} steps in a row were skipped for a loss or gradient that is not finite "
                f"(train.max_bad_steps: {self.config.train.max_bad_steps}); not finite at the end: "
                f"{', '.join(not_finite) or 'nothing'}; last good checkpoint: "
                f"{saved[0] if saved else 'none'}; lower the learning rates or set train.clip_norm"
            )

    def _draw(self, logger: Logger, name: str, inputs: StepInputs) -> None:
        grids = draw_grids(self.model, self.adversary, inputs, self.config.log.num_images)
        for part, grid in grids:
            logger.picture(self.step, f"{name}-{part}", grid)

    def _validate(self, logger: Logger) -> None:
        """Metrics and pictures on the test split, with the averaged weights."""
        model = (self.average.model if self.average is not None else self.model).eval()
        log, batch_size = self.config.log, self.config.train.micro_batch or self.num_own_samples
        self.metrics = judge_model(model, self.test_clips, log, self.device, batch_size)
        self.validated_at = self.step
        logger.scalars(self.step, self.metrics, kind="validation")
        logger.message(
            f"step {self.step} validation: "
            + " ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        )
        context = self._context(torch.Generator(self.device))
        inputs = run_branches(
            model, self.test_clips, log.num_images, self.device, self.perceptual, context
        )
        self._draw(logger, "validation", inputs)
        self.model.train()
        # The best of a time when a part of the model had not started would be of no use.
        if not self._waiting(self.step) and self.metrics["l1"] < self.best_l1:
            self.best_l1 = self.metrics["l1"]
            checkpoint.keep_best(self.output_dir, self.save())
