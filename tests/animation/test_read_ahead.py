"""Prefetching: order, bounds, errors, and threads that end."""

import threading
import time
from contextlib import closing

import pytest

from animation.read_ahead import prefetch

PATIENCE = 10  # seconds to wait for what should take none


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_items_come_in_order():
    assert list(prefetch(iter([3, None, 1, 2]), 2)) == [3, None, 1, 2]
    assert list(prefetch([], 2)) == []


@pytest.mark.parametrize("num_ahead", [1, 3])
def test_no_more_is_made_than_asked_for(num_ahead):
    made = []
    all_made = threading.Event()

    def numbers():
        for number in range(100):
            made.append(number)
            if number == num_ahead:
                all_made.set()
            yield number

    with closing(prefetch(numbers(), num_ahead)) as ahead:
        assert made == []  # nothing is made before the first item is read
        assert next(ahead) == 0
        assert all_made.wait(PATIENCE)
    assert made == list(range(num_ahead + 1))


def test_the_next_item_is_made_while_this_one_is_in_use():
    in_use, made = threading.Event(), threading.Event()

    def items():
        yield "first"
        assert in_use.wait(PATIENCE)
        made.set()
        yield "second"

    with closing(prefetch(items(), 1)) as ahead:
        next(ahead)
        in_use.set()
        assert made.wait(PATIENCE)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_is_raised_in_its_turn(kind):
    error = kind("of the third")

    def items():
        yield 1
        yield 2
        raise error

    ahead = prefetch(items(), 4)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(kind) as caught:
        next(ahead)
    assert caught.value is error
    assert list(ahead) == []


def test_a_reader_that_stops_early_ends_the_thread():
    """It finishes the item that it works on and does not begin the ones after it."""
    made = []

    def numbers():
        for number in range(100):
            made.append(number)
            yield number
            time.sleep(0.01)

    with closing(prefetch(numbers(), 100)) as ahead:
        next(ahead)
    assert len(made) < 50
    assert list(ahead) == []
