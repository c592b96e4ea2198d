"""Frames per second and latencies, worked out by hand on a clock that stands still."""

import pytest

from animation.live import measures as module
from animation.live.measures import Measures


@pytest.fixture
def clock(monkeypatch):
    """The time, in a list of one number."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_lines_and_summary(clock):
    measures = Measures()
    clock[0] = 105.0  # what comes before the first frame does not count
    measures.add(None)
    for latency in (0.05, 0.06, 0.07, 0.16):
        clock[0] += 0.25
        measures.add(latency)
    assert measures.seconds_since_line == 1.0
    # 4 frames after the first; 95% lies at 0.85 between the third and the fourth latency.
    assert measures.line(3) == "4.0 frames/s, latency 65 ms (95%: 146 ms), 3 dropped"
    clock[0] += 2
    measures.add(0.2)
    assert measures.line(4) == "0.5 frames/s, latency 200 ms (95%: 200 ms), 4 dropped"
    assert measures.summary(10, 4) == (
        "6 frames in 3.0 s: 1.7 frames/s, latency 70 ms (95%: 192 ms); 4 of 10 pictures of the "
        "camera were dropped"
    )


def test_a_single_frame(clock):
    measures = Measures()
    measures.add(None)
    clock[0] += 1
    assert measures.line(0) == "0.0 frames/s, 0 dropped"
