"""The queue of the page: animations are made one after the other, in the order of their requests.

Gradio has a queue too, but there a request can be taken back only when its turn has come.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from common.errors import UserError

POLL_SECONDS = 0.5  # so often a waiting request looks whether it is still wanted


class QueueLength(NamedTuple):
    """How many animations run (0 or 1), and how many wait."""

    num_running: int
    num_waiting: int


class WaitingQueue:
    """A queue for threads.

    Args:
        max_waiting: requests that may wait besides the one that runs.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._places: list[Place] = []  # in the order of arrival; the first one runs

    def length(self) -> QueueLength:
        with self._changed:
            return self._length()

    def _length(self) -> QueueLength:
        num_places = len(self._places)
        return QueueLength(min(num_places, 1), max(num_places - 1, 0))

    @contextmanager
    def place(self) -> Iterator["Place"]:
        """Context manager: a place at the end of the queue, which is left at the end of the block.

        Raises:
            UserError: the queue is full.
        """
        place = Place(self)
        with self._changed:
            if len(self._places) > self._max_waiting:
                num, wait = self._max_waiting, "waits" if self._max_waiting == 1 else "wait"
                raise UserError(
                    f"The queue is full: {num} already {wait}. Try again in a few minutes."
                )
            self._places.append(place)
        try:
            yield place
        finally:
            with self._changed:
                self._places.remove(place)
                self._changed.notify_all()

    def wait(self, place: "Place", tell: Callable[[int, int], object]) -> None:
        """See `Place.wait`."""
        while True:
            with self._changed:
                num_before, num_waiting = self._places.index(place), self._length().num_waiting
            if num_before == 0:
                return
            tell(num_before, num_waiting)
            with self._changed:
                self._changed.wait_for(lambda: self._places[0] is place, POLL_SECONDS)


class Place:
    """A place in a `WaitingQueue`."""

    def __init__(self, queue: WaitingQueue) -> None:
        self._queue = queue

    def wait(self, tell: Callable[[int, int], object]) -> None:
        """Wait until all earlier requests have left the queue.

        Args:
            tell: called every POLL_SECONDS with the number of requests before this one (with the
                one that runs) and the number of all that wait. What it raises ends the waiting.
        """
        self._queue.wait(self, tell)


def describe_length(length: QueueLength) -> str:
    """The length of the queue in words."""
    running, waiting = length
    if running == 0:
        return "Queue: empty."
    if waiting == 0:
        return "Queue: one animation is being made, none waits."
    return f"Queue: one animation is being made, {waiting} {'waits' if waiting == 1 else 'wait'}."


def describe_place(num_before: int, num_waiting: int) -> str:
    """A place in the queue in words: how many are made before, and how many wait in all."""
    return f"number {num_before} of {num_waiting} in the queue"
