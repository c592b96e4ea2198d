"""The training loop: runs the training step from the first step of a run to the last.

With several processes, each has a Trainer and takes every step. Only rank 0 writes the log,
validates and saves checkpoints; the other processes wait for it in the next step.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from branches.branch import StepContext, StepInputs
from branches.model import Model
from checkpoints.checkpoint import Checkpoint
from checkpoints.weights import load_networks
from common.batch_random import BatchRandom
from common.cli import caught_signals
from common.distributed import processes as distributed
from common.errors import UserError, in_one_line, lacks_memory
from common.machine import keep_freed_memory
from common.seeding import numpy_rng, torch_seed
from common.tensor_files import CheckpointError
from configs.schema import Config
from datasets.loading import loaded_batches
from datasets.packed import PackedClips
from datasets.pairs import BatchSchedule, FailureBudget, FramePairs, PairBatch
from datasets.source import ClipSource
from logger import Logger
from losses import Perceptual
from training.acceleration import compile_networks, prepare_networks, uncompiled
from training.adversary import Adversary, all_networks
from training.auto_settings import numerics
from training.diagnosis import advice, data_warning, too_many_bad_steps
from training.distributed.sync_batch_norm import synchronize_batch_norm
from training.meters import RunningMeans, StepClock
from training.optimization import MovingAverage, Optimizer
from training.run_checkpoints import RunCheckpoints
from training.run_folder import RunRecord
from training.start_schedule import StartSchedule
from training.step import train_step
from training.time_limits import Pace, time_is_up
from training.validation import draw_grids, run_branches, validate_model


class Trainer:
    """One run: its model, optimizer, data and log, and the loop that trains.

    Args:
        config: the config without any `auto`; see `auto_settings.resolve`.
        stated_config: the config as the user gave it, which checkpoints store for any machine.
        record: the record of the run in `output_dir`; None if the run saves nothing.
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
        record: RunRecord | None = None,
    ) -> None:
        self.config = config
        self.stated_config = config if stated_config is None else stated_config
        self.device = device
        self.output_dir = output_dir
        self.checkpoints = RunCheckpoints(output_dir, record, config.train.keep_checkpoints)
        self.model = model.to(device).train()
        self.adversary = adversary if adversary is None else adversary.to(device).train()
        self.perceptual = perceptual.to(device).eval()
        self.num_own_samples = config.train.batch_size // distributed.world_size()
        if distributed.world_size() > 1:
            synchronize_batch_norm(self.model, device)
            networks = [n for n in (self.model, self.adversary, self.perceptual) if n is not None]
            distributed.copy_networks_from_main(networks)
        prepare_networks(self.model, self.adversary, self.perceptual, config.train)
        if device.type == "cpu":
            keep_freed_memory()
        self.pairs = pairs
        self.test_clips = test_clips
        self.optimizer = Optimizer(self.model, self.adversary, config, device)
        decay = config.train.ema_decay
        self.average = None  # only rank 0 needs it, for validation and checkpoints
        if decay is not None and distributed.is_main():
            self.average = MovingAverage(self.model, decay)
        # Last, because copies of compiled networks would still run the original ones.
        compile_networks(self.model, self.adversary, self.perceptual, config.train)
        self.failures = FailureBudget(len(pairs.clips.clips))
        self.batches_per_epoch = len(pairs) // config.train.batch_size
        self.last_step = self.batches_per_epoch * config.train.epochs
        if config.train.max_steps is not None:
            self.last_step = min(self.last_step, config.train.max_steps)
        self.step = self.epoch = self.batch = 0  # number of steps done; place of the next step
        self.starts = StartSchedule(config, self.last_step)
        self.means = RunningMeans()  # over the steps since the last line of the log
        self.logged_at = 0  # last step that has a line in the log
        self.seconds = 0.0  # training time so far, with the earlier parts of a resumed run
        self.validated_at = -1  # last validated step
        self.metrics: dict[str, float] = {}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks of model and discriminator by name, frozen ones included."""
        return all_networks(self.model, self.adversary)

    def restore(self, saved: Checkpoint) -> None:
        """Load the state of `saved`, so that training continues exactly where it was written.

        Raises:
            CheckpointError: `saved` has other networks, or its training state cannot be used.
        """
        load_networks(self.networks, saved.networks, saved.path)
        try:
            self._restore_state(saved)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            if lacks_memory(error):
                raise
            raise CheckpointError(
                f"{saved.path}: its training state cannot be used ({in_one_line(error)}); start a "
                "new run from it with --init-from"
            ) from error

    def _restore_state(self, saved: Checkpoint) -> None:
        self.optimizer.load_state(saved.training["optimizer"])
        if self.average is not None and saved.average is not None:
            self.average.load_state(saved.average)
        self.step, self.epoch, self.batch = saved.step, saved.epoch, saved.batch
        if self.batch >= self.batches_per_epoch:  # the data or the batch size has changed
            self.epoch, self.batch = self.epoch + 1, 0
        self.starts.restore(saved)
        self.seconds = saved.training["seconds"]
        self.logged_at = saved.step
        if "log" in saved.training:  # older checkpoints have none
            self.logged_at = saved.training["log"]["logged_at"]
            self.means.load_state(saved.training["log"]["means"], self.device)
        if saved.metrics:
            self.metrics, self.validated_at = saved.metrics, saved.step
        self.checkpoints.restore(saved)
        if distributed.is_main() and self.checkpoints.saved_at == self.validated_at == self.step:
            self._keep_if_best()  # the run may have been killed before the copy was made

    def save(self) -> None:
        """Write a checkpoint of this step and delete the oldest ones."""
        self.checkpoints.save(
            self.step,
            self.stated_config,
            self.networks,
            epoch=self.epoch,
            batch=self.batch,
            planned_steps=self.starts.planned_steps if self.starts.by_share else None,
            average=self.average.state() if self.average is not None else None,
            training=self._training_state(),
            metrics=self.metrics if self.validated_at == self.step else {},
        )

    def _training_state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state(),
            "seconds": self.seconds,
            "best_l1": self.checkpoints.best_l1,
            "log": {"logged_at": self.logged_at, "means": self.means.state()},
            "numerics": numerics(self.config),
        }

    def run(self) -> int | None:
        """Train until the last step, a signal or the time limit, and save a checkpoint.

        Returns:
            The number of the signal that ended the run, or None.

        Raises:
            UserError: there were too many bad steps or too many unreadable clips.
        """
        logger = None
        if distributed.is_main():
            # If the validation line of this step came after its checkpoint, it is written again.
            validated_at = self.step - (self.validated_at != self.step)
            logged_until = {"train": self.logged_at, "validation": validated_at}
            logger = Logger(self.output_dir, self.step, self.last_step, logged_until)
            self.starts.report_late_starts(logger, self.batches_per_epoch)
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
                except distributed.PeerLost:  # this step may be half done, so it is not saved
                    raise
                except UserError as error:
                    is_new = self.step > 0 and self.checkpoints.saved_at != self.step
                    if distributed.is_main() and is_new and not self._is_bad():
                        self._save_after(error)
                    raise
            if logger is not None:
                with advice(self.config, self.num_own_samples):
                    self._finish(logger, caught)
            return caught[0] if caught else None
        finally:
            if logger is not None:
                logger.close()

    def _save_after(self, error: UserError) -> None:
        """Save before `error` ends the run; if that fails too, raise one line about both errors."""
        try:
            self.save()
        except UserError as second:
            lines = dict.fromkeys((str(error), str(second), self.checkpoints.describe_newest()))
            raise UserError("; ".join(lines)) from error

    def _finish(self, logger: Logger, caught: list[int]) -> None:
        """Save the last step and, unless a signal has ended the run, validate it."""
        if caught:
            self.save()
            name = signal.Signals(caught[0]).name
            logger.message(f"{name}: saved step {self.step}; continue with --resume")
            return
        self.starts.report_missed_starts(logger)
        if self.checkpoints.saved_at != self.step:
            self.save()
        if self.validated_at != self.step:
            with uncompiled(self.config.train):
                self._validate(logger)
        if self.checkpoints.saved_at != self.step:
            self.save()  # replaces the one from before the validation, which lacks the metrics

    def _run_steps(
        self, logger: Logger | None, batches: Iterator[PairBatch], caught: list[int]
    ) -> None:
        config, clock, pace = self.config, StepClock(), Pace()
        part = (distributed.rank(), distributed.world_size())
        generator = torch.Generator(self.device)
        begun = time.perf_counter() - self.seconds
        self._make_up(logger, clock)
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
                self._context(generator, *part),
                config,
            )
            if self.average is not None:
                self.average.update(self.model)
            self.means.add(result.scalars)
            self._advance()
            clock.step_done(waited)
            if logger is not None:
                logger.step_done()
            pace.step_done(time.perf_counter() - started, self._waiting(self.step))
            seconds = time.perf_counter() - begun
            is_log_due = self._is_due(config.log.scalars_every)
            self.starts.update(logger, pace, self.step, seconds, is_log_due=is_log_due)
            if is_log_due or self.step == self.last_step:
                self._log(logger, clock, is_last=not is_log_due)
            if any(map(self._is_due, (config.log.validate_every, config.train.checkpoint_every))):
                self.means.collect()  # rank 0 may write a checkpoint, which stores these means
            if logger is not None:
                self._draw_validate_save(logger, result.inputs, clock)
            self.seconds = time.perf_counter() - begun
        if self.step > self.logged_at and not caught:  # the time limit has ended the run
            self._log(logger, clock, is_last=True)
            self.checkpoints.saved_at = -1  # a checkpoint from before this line must be replaced
        self.means.collect()

    def _make_up(self, logger: Logger | None, clock: StepClock) -> None:
        """Log and validate the step at which a run is resumed, if that was due and is missing: the
        run had saved this step and ended because it could not write its log.
        """
        if self.step > self.logged_at and self._is_due(self.config.log.scalars_every):
            self._log(logger, clock)
        is_missing = self.step > 0 and self.validated_at != self.step
        if logger is not None and is_missing and self._is_due(self.config.log.validate_every):
            with uncompiled(self.config.train):
                self._validate(logger)

    def _waiting(self, step: int) -> frozenset[str]:
        """Config sections of the parts that did not learn in any of the first `step` steps, where
        `step` is `self.step`, or one more.
        """
        return self.starts.waiting(step, self.epoch, self.batch + step - self.step)

    def _draw_validate_save(self, logger: Logger, inputs: StepInputs, clock: StepClock) -> None:
        """Draw pictures, validate and save a checkpoint, each only if it is due after this step."""
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
            and self.checkpoints.saved_at != self.step
            and not self._is_bad()
        ):
            self.save()

    def _context(
        self, generator: torch.Generator, part: int = 0, num_parts: int = 1
    ) -> StepContext:
        """The context of this step for part `part` of the batch; seeds `generator` for it."""
        place = (self.config.seed, self.step)
        return StepContext(
            self.epoch + self.batch / self.batches_per_epoch,
            BatchRandom(generator.manual_seed(torch_seed("step", *place)), part, num_parts),
            numpy_rng("coin", *place).random(),  # never rename "coin": it is part of the seed
            self._waiting(self.step + 1),
        )

    def _advance(self) -> None:
        self.step += 1
        self.batch += 1
        if self.batch == self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0

    def _is_bad(self) -> bool:
        """Whether the last step was skipped; then the weights may be broken."""
        return bool(self.optimizer.last_step_bad)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0

    def _is_ended(self, caught: list[int]) -> bool:
        """Whether the run ends here: the time is up, or a process has caught a signal."""
        is_late = distributed.is_main() and time_is_up(self.config.train, self.step, self.seconds)
        signals, ends = distributed.largest(caught[0] if caught else 0, is_late)
        if signals and not caught:
            caught.append(int(signals))
        return bool(signals or ends)

    def _log(self, logger: Logger | None, clock: StepClock, *, is_last: bool = False) -> None:
        """Write the log line of this step; `is_last` keeps the means for a resumed run."""
        values, not_finite = self.means.read()
        values["epoch"] = self.epoch + self.batch / self.batches_per_epoch
        values |= self.optimizer.read_statistics()
        values |= clock.speed(self.config.train.batch_size)
        data_share = clock.bottleneck()
        if logger is not None:
            logger.scalars(self.step, values)
            logger.status(self.step, values)
            if data_share is not None:
                packed, data = isinstance(self.pairs.clips, PackedClips), self.stated_config.data
                warning = data_warning(data_share, self.config.data, packed, data.num_workers)
                logger.message(warning)
        self.logged_at = self.step
        if not is_last:
            self.means.clear()
        self.failures.failed.update(*distributed.gather(sorted(self.failures.failed)))
        if message := self.failures.excess():
            raise distributed.common_error(message)
        num_bad, limit = int(self.optimizer.bad_in_a_row), self.config.train.max_bad_steps
        if num_bad > limit:
            newest = self.checkpoints.describe_newest()
            message = too_many_bad_steps(num_bad, limit, not_finite, newest)
            raise distributed.common_error(message)

    def _draw(self, logger: Logger, name: str, inputs: StepInputs) -> None:
        grids = draw_grids(self.model, self.adversary, inputs, self.config.log.num_images)
        for part, grid in grids:
            logger.picture(self.step, f"{name}-{part}", grid)

    def _validate(self, logger: Logger) -> None:
        """Log metrics and pictures of the test split, with the averaged weights, if any."""
        model = (self.average.model if self.average is not None else self.model).eval()
        log, batch_size = self.config.log, self.config.train.micro_batch or self.num_own_samples
        self.metrics = validate_model(model, self.test_clips, log, self.device, batch_size)
        logger.scalars(self.step, self.metrics, kind="validation")
        self.validated_at, self.checkpoints.saved_at = self.step, -1  # it has no metrics yet
        found = " ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        logger.message(f"step {self.step} validation: {found}")
        context = self._context(torch.Generator(self.device))
        inputs = run_branches(
            model, self.test_clips, log.num_images, self.device, self.perceptual, context
        )
        self._draw(logger, "validation", inputs)
        self.model.train()
        self._keep_if_best()

    def _keep_if_best(self) -> None:
        """Copy the checkpoint of this step to best.pt if its metrics are the best so far and all
        parts of the model have started; before that best.pt would be of no use.
        """
        if not self._waiting(self.step) and self.metrics["l1"] < self.checkpoints.best_l1:
            self.checkpoints.best_l1 = self.metrics["l1"]
            if self.checkpoints.saved_at != self.step:
                self.save()
            self.checkpoints.keep_best(self.step)
