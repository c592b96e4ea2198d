"""Ends a process when the torchrun that started it is gone.

torchrun's agent ends its processes itself, unless it is killed. Then they would work on, and a
second start of the run would find the first one still running.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_POLL = 1.0  # seconds between two checks of the parent process
_GRACE_PERIOD = 30.0  # seconds between SIGTERM, after which a run saves its step, and SIGKILL


@contextmanager
def ending_with_agent() -> Iterator[None]:
    """Context manager: if torchrun has started this process and ends within it, this process gets
    SIGTERM and, if that does not end it, SIGKILL.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # not started by torchrun: the parent may end
        yield
        return
    is_over = threading.Event()
    watch = threading.Thread(target=_watch, args=(os.getppid(), is_over), daemon=True)
    watch.start()
    try:
        yield
    finally:
        is_over.set()


def _watch(agent: int, is_over: threading.Event) -> None:
    """Wait until the parent is not the process `agent` any more, then end this process."""
    while os.getppid() == agent:
        if is_over.wait(_POLL):
            return
    os.kill(os.getpid(), signal.SIGTERM)
    if not is_over.wait(_GRACE_PERIOD):
        os.kill(os.getpid(), signal.SIGKILL)
