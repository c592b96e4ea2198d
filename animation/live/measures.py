"""Measures an animation in real time: frames per second, and the latency of each frame."""

import time
from array import array
from collections.abc import Sequence

import numpy as np


class Measures:
    """Counts frames, and keeps their latencies: 4 bytes for each frame. The time begins with the
    first frame.

    The latency of a frame is the time from its arrival in this program to its animated, encoded
    picture. What camera and system need before, and browser and screen after that, is not in it.
    """

    def __init__(self) -> None:
        self.num_frames = 0
        self._latencies = array("f")
        self._began = self._noted = 0.0
        self._num_noted = (1, 0)  # frames and latencies at the time `_noted`

    def add(self, latency: float | None) -> None:
        """Count a frame with its latency in seconds; None where it says nothing."""
        if self.num_frames == 0:
            self._began = self._noted = time.perf_counter()
        self.num_frames += 1
        if latency is not None:
            self._latencies.append(latency)

    @property
    def seconds_since_line(self) -> float:
        """Seconds since the last `line`, or since the first frame."""
        return time.perf_counter() - self._noted

    def line(self, num_dropped: int) -> str:
        """The numbers since the last call; the dropped frames are those since the beginning."""
        seconds = self.seconds_since_line
        num_frames, num_latencies = self._num_noted
        text = _describe(self.num_frames - num_frames, seconds, self._latencies[num_latencies:])
        self._noted += seconds
        self._num_noted = self.num_frames, len(self._latencies)
        return f"{text}, {num_dropped} dropped"

    def summary(self, num_shots: int, num_dropped: int) -> str:
        """The numbers of the whole time, at least one frame."""
        seconds = time.perf_counter() - self._began
        text = _describe(self.num_frames - 1, seconds, self._latencies)
        return (
            f"{self.num_frames} frames in {seconds:.1f} s: {text}; {num_dropped} of {num_shots} "
            "pictures of the camera were dropped"
        )


def _describe(num_frames: int, seconds: float, latencies: Sequence[float]) -> str:
    text = f"{num_frames / max(seconds, 1e-9):.1f} frames/s"
    if not latencies:
        return text
    median, most = 1000 * np.percentile(np.asarray(latencies), (50, 95))
    return f"{text}, latency {median:.0f} ms (95%: {most:.0f} ms)"
