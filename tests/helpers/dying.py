"""Worker functions that die or hang. It imports almost nothing, so that workers start fast."""

import os
import signal
import time

from datasets.prepare.candidates import Candidate


def convert(*_: object) -> None:
    """Kill this process, as the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def keep_busy(*_: object) -> None:
    """Be busy for a minute, as with a very long clip."""
    time.sleep(60)


def die_at_the_second(candidate: Candidate, *_: object) -> None:
    """Accept the clip 0, and kill this process at any other."""
    if candidate.name != "0":
        convert()
