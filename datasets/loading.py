"""Loads batches of training pairs in worker processes, which end with a `with` block."""

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.data import DataLoader

from common.errors import UserError
from datasets.pairs import BatchSchedule, FramePairs, PairBatch, collate
from media.video import VideoError


@contextmanager
def loaded_batches(
    pairs: FramePairs, schedule: BatchSchedule, num_workers: int, pin_memory: bool
) -> Iterator[Iterator[PairBatch]]:
    """Give the `with` block an endless iterator over the batches of `schedule`, in order.

    Raises:
        UserError: while iterating, if many clips in a row cannot be read.
    """
    loader = DataLoader(
        pairs,
        batch_sampler=schedule,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_signals,
    )
    if num_workers > 0:
        # A forked worker that frees what is left of a decoder waits for its threads, which only the
        # parent has.
        gc.collect()
    batches = iter(loader)
    try:
        yield _in_one_line(batches)
    finally:
        # An exception that is being raised keeps the iterator and its workers alive. They ignore
        # the SIGTERM that would end them at exit, and the program would wait for them forever.
        if num_workers > 0:
            batches._shutdown_workers()  # type: ignore[attr-defined]


def _in_one_line(batches: Iterator[PairBatch]) -> Iterator[PairBatch]:
    """Iterate, and reduce a worker's error to its last line."""
    try:
        yield from batches
    except VideoError as error:  # its message holds the traceback of the worker process
        raise UserError(str(error).splitlines()[-1].split("VideoError: ")[-1]) from error


def _ignore_signals(_worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM, which reach the workers too; the main process ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
