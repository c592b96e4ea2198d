"""Only the newest shot of a camera is kept; what it replaces is counted."""

import threading
from fractions import Fraction

import numpy as np
import pytest

from animation.live.newest import NewestShot
from common.errors import UserError
from media.camera import Shot


class Scripted:
    """A camera that makes shots 0, 1, 2 .. up to the numbers that it is told, and then fails or
    ends.
    """

    name = "camera:scripted"
    frame_rate = Fraction(25)

    def __init__(self, num_shots, error=None):
        self.may_make = threading.Semaphore(0)
        self.has_made = threading.Semaphore(0)
        self._num_shots = num_shots
        self._error = error

    def make(self, count):
        """Make `count` shots, and return when the reader has them all."""
        for _ in range(count):
            self.may_make.release()
        for _ in range(count):
            assert self.has_made.acquire(timeout=10)

    def __iter__(self):
        for number in range(self._num_shots):
            assert self.may_make.acquire(timeout=10)
            yield Shot(float(number), lambda: np.zeros((1, 1, 3), np.uint8))
            self.has_made.release()  # the reader has come back for the next one
        if self._error is not None:
            raise self._error


@pytest.fixture
def start():
    opened = []

    def start(camera):
        shots = NewestShot(camera)
        shots.start()
        opened.append(shots)
        return shots

    yield start
    for shots in opened:
        shots.close()


def test_older_shots_are_dropped(start):
    camera = Scripted(10)
    shots = start(camera)
    camera.make(1)
    assert shots.take(10).time == 0
    camera.make(4)
    assert shots.take(10).time == 4  # not 1: nothing is queued
    assert (shots.num_shots, shots.num_dropped) == (5, 3)
    assert shots.take(0) is None  # no shot is given twice
    camera.make(5)
    assert not shots.is_over
    assert shots.take(10).time == 9
    assert shots.take(10) is None
    assert shots.is_over
    assert (shots.num_shots, shots.num_dropped) == (10, 7)


def test_the_last_shot_is_taken_before_the_camera_is_lost(start):
    camera = Scripted(2, UserError("camera:scripted: lost"))
    shots = start(camera)
    camera.make(2)
    assert shots.take(10).time == 1
    with pytest.raises(UserError, match="lost"):
        shots.take(10)


def test_a_camera_without_pictures(start):
    with pytest.raises(UserError, match="camera:scripted: sends no pictures"):
        start(Scripted(0)).take(10)
