"""The times of a camera's frames."""

from fractions import Fraction

from animation.live.session import _append_time


def test_times_ascend():
    """Two pictures of one packet come at the same moment, and filters divide by the difference."""
    times = []
    for seconds in (0.0, 0.5, 0.5, 0.25):
        _append_time(times, seconds)
    assert times == [0, Fraction(1, 2), Fraction(500_001, 10**6), Fraction(500_002, 10**6)]
