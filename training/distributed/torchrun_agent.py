"""The end of torchrun's agent: the processes that it started must not train on without it.

A killed agent can tell them nothing, and whoever starts the run again would have two of them.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_POLL = 1.0  # seconds between two looks at the parent
_PATIENCE = 30.0  # seconds for the step and the checkpoint that SIGTERM lets a run finish


@contextmanager
def ending_with_agent() -> Iterator[None]:
    """Within it a process that torchrun started is sent SIGTERM when torchrun is gone, and SIGKILL
    where that does not end it.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # started by somebody who may leave
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
    while os.getppid() == agent:
        if is_over.wait(_POLL):
            return
    os.kill(os.getpid(), signal.SIGTERM)
    if not is_over.wait(_PATIENCE):
        os.kill(os.getpid(), signal.SIGKILL)
