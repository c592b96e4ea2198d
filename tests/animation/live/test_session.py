"""The times of a camera's frames, and their recording."""

from contextlib import ExitStack
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from animation.live.session import MAX_RECORDED_RATE, _append_time, _Display


def test_times_ascend():
    """Two pictures of one packet come at the same moment, and filters divide by the difference."""
    times = []
    for seconds in (0.0, 0.5, 0.5, 0.25):
        _append_time(times, seconds)
    assert times == [0, Fraction(1, 2), Fraction(500_001, 10**6), Fraction(500_002, 10**6)]


def test_a_folder_gets_few_frames_a_second(tmp_path):
    """A file that is played as a camera may state a hundred thousand, which would fill the disk."""
    page, output = SimpleNamespace(show=lambda picture: None, line=""), tmp_path / "out"
    with ExitStack() as recording:
        show = _Display(page, output, Fraction(100_000), recording, SimpleNamespace(disable=True))
        for number, seconds in enumerate((0.0, 0.25, 0.5)):
            shots = SimpleNamespace(num_dropped=0)
            show.add(np.zeros((8, 8, 3), np.uint8), seconds, number == 0, shots)
    assert len([*output.glob("*.png")]) == pytest.approx(0.5 * MAX_RECORDED_RATE, abs=2)
