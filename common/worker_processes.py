"""Worker processes on this machine, which end with the main process and never before."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def worker_processes(
    count: int, start: Callable[[], object] | None = None
) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes, which are ended at once if an exception leaves the `with` block.

    Args:
        start: called first in every worker; a function of a module.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # inherits no threads and open files
    with ProcessPoolExecutor(
        count, context, initializer=_follow_the_main_process, initargs=(start,)
    ) as pool:
        try:
            yield pool
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _follow_the_main_process(start: Callable[[], object] | None) -> None:
    """Ignore Ctrl-C, and end this worker when the main process ends, even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()
    if start is not None:
        start()


def _end_with_the_main_process() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
