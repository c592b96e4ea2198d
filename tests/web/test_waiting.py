"""The queue of the page."""

import threading
import time

import pytest

from common.errors import UserError
from web import waiting
from web.waiting import QueueLength, WaitingQueue, describe_length, describe_place


def settle(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def short_polls(monkeypatch):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.005)


class Visitor(threading.Thread):
    """Takes a place in a queue, and is served until `done` is set, unless it gives up before.

    told: places it was told, without repetitions.
    """

    def __init__(self, queue, order):
        super().__init__(daemon=True)
        self.queue, self.order = queue, order
        self.done, self.gives_up = threading.Event(), threading.Event()
        self.told = []
        before = sum(queue.length())
        self.start()
        settle(lambda: sum(queue.length()) > before)

    def run(self):
        try:
            with self.queue.place() as place:
                place.wait(self.tell)
                self.order.append(self)
                self.done.wait(10)
        except InterruptedError:
            pass

    def tell(self, *place):
        if self.gives_up.is_set():
            raise InterruptedError
        if [place] != self.told[-1:]:
            self.told.append(place)


def test_one_after_the_other_in_the_order_of_arrival():
    queue, order = WaitingQueue(5), []
    assert queue.length() == QueueLength(0, 0)
    visitors = [Visitor(queue, order) for _ in range(3)]
    assert queue.length() == QueueLength(1, 2)
    settle(lambda: order == visitors[:1])
    settle(lambda: visitors[2].told[-1:] == [(2, 2)])
    for number, visitor in enumerate(visitors, 1):
        settle(lambda number=number: order == visitors[:number])
        if number == 2:
            settle(lambda: visitors[2].told[-1:] == [(1, 1)])
        visitor.done.set()
        visitor.join(10)
    assert queue.length() == QueueLength(0, 0)
    assert visitors[0].told == []


def test_who_gives_up_leaves_the_queue_at_once():
    queue, order = WaitingQueue(5), []
    visitors = [Visitor(queue, order) for _ in range(3)]
    visitors[1].gives_up.set()
    visitors[1].join(10)
    assert queue.length() == QueueLength(1, 1)
    settle(lambda: visitors[2].told[-1:] == [(1, 1)])
    assert order == visitors[:1]
    visitors[0].done.set()
    settle(lambda: order == [visitors[0], visitors[2]])
    visitors[2].done.set()


def test_a_full_queue():
    queue, order = WaitingQueue(1), []
    visitors = [Visitor(queue, order) for _ in range(2)]
    with pytest.raises(UserError, match=r"^The queue is full: 1 already waits\. Try again"):
        queue.place().__enter__()
    assert queue.length() == QueueLength(1, 1)
    for visitor in visitors:
        visitor.done.set()
        visitor.join(10)
    with queue.place() as place:
        place.wait(pytest.fail)


def test_an_error_frees_the_place():
    queue = WaitingQueue(0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), queue.place():
            raise ZeroDivisionError
    assert queue.length() == QueueLength(0, 0)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        ((0, 0), "Queue: empty."),
        ((1, 0), "Queue: one animation is being made, none waits."),
        ((1, 1), "Queue: one animation is being made, 1 waits."),
        ((1, 4), "Queue: one animation is being made, 4 wait."),
    ],
)
def test_the_length_in_words(length, words):
    assert describe_length(QueueLength(*length)) == words


def test_a_place_in_words():
    assert describe_place(2, 5) == "number 2 of 5 in the queue"
