"""Writes the checkpoints of a run while it trains: the newest ones, and best.pt."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from checkpoints import checkpoint
from checkpoints.checkpoint import Checkpoint
from checkpoints.file_checks import check_metrics
from checkpoints.folder import best_path, keep_best, list_steps, prune, step_path
from common import tensor_files
from common.distributed import processes
from configs.schema import Config
from training.run_folder import RunRecord, write_record


class RunCheckpoints:
    """The checkpoints of one run; only rank 0 writes them.

    Args:
        record: the record of the run; None if the run saves nothing.
        num_kept: number of newest checkpoints that are kept.

    Attributes:
        saved_at: the last step that has a checkpoint; -1 if it must be written (again).
        best_l1: validation L1 of best.pt; infinite without one.
    """

    def __init__(self, output_dir: Path, record: RunRecord | None, num_kept: int) -> None:
        self._output_dir = output_dir
        self._record = record
        self._num_kept = num_kept
        self.saved_at = -1
        self.best_l1 = math.inf

    def restore(self, saved: Checkpoint) -> None:
        """Continue from `saved`.

        `best_l1` is read from best.pt itself, since the run may have been killed before it copied
        its best checkpoint.
        """
        if saved.path.resolve() == step_path(self._output_dir, saved.step).resolve():
            self.saved_at = saved.step
        path = best_path(self._output_dir)
        if processes.is_main() and path.exists():
            metrics: Any = tensor_files.read_facts(path).get("metrics")
            try:
                check_metrics(metrics)
            except ValueError:
                processes.report(f"{path}: cannot be read; the next validation replaces it")
            else:
                l1 = metrics.get("l1", math.inf)
                self.best_l1 = l1 if l1 >= 0 else math.inf  # nothing is less than NaN or -inf

    def save(
        self, step: int, config: Config, networks: Mapping[str, nn.Module], **content: Any
    ) -> Path:
        """Write the checkpoint of `step`, see `checkpoint.save`, and delete the oldest ones.

        Raises:
            UserError: it cannot be written, for example because the disk is full.
        """
        assert self._record is not None, "a run without a record saves nothing"
        path, run_id = step_path(self._output_dir, step), self._record.run_id
        checkpoint.save(path, config, networks, step=step, run_id=run_id, **content)
        self.saved_at = step
        if not self._record.has_saved:
            self._record = self._record._replace(has_saved=True)
            write_record(self._output_dir, self._record)
        prune(path, self._num_kept)
        return path

    def keep_best(self, step: int) -> None:
        """Make best.pt a copy of the checkpoint of `step`."""
        keep_best(self._output_dir, step_path(self._output_dir, step))

    def describe_newest(self) -> str:
        """Name the newest checkpoint, for the end of an error message."""
        newest = next(iter(list_steps(self._output_dir)), None)
        return f"last good checkpoint: {newest or 'none'}"
