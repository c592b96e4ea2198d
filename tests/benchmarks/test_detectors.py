"""benchmarks/detectors.py: changes of frames, measured with a detector of the brightest pixel."""

import numpy as np
import pytest

from benchmarks.detectors import measure, window
from metrics.detectors.detector import Description

SIDE = 40


class Brightest:
    """A detector whose landmark is the brightest pixel, and whose embedding is the mean level."""

    description = Description("brightest", "none", "one point", "none")

    def landmarks(self, frame):
        y, x = np.unravel_index(frame[..., 0].argmax(), frame.shape[:2])
        return np.array([[x, y]], float)

    def embedding(self, frame):
        return np.array([frame.mean() / 255])


def frames(count=6):
    found = np.full((count, SIDE, SIDE, 3), 60, np.uint8)
    for number, frame in enumerate(found):
        frame[20, 15 + number] = 250
    return list(found)


def test_a_window_moves_its_contents():
    frame = frames()[0]
    plain, moved = window(frame, 8), window(frame, 8, (3, 2))
    assert plain.shape == moved.shape == (24, 24, 3)
    assert Brightest().landmarks(plain).tolist() == [[7, 12]]
    assert Brightest().landmarks(moved).tolist() == [[10, 14]]


def test_changes():
    rows = {row["change"]: row for row in measure(Brightest(), "clip", frames(), 8, 2)}
    assert list(rows) == ["same", "moved", "noise", "mp4"]
    assert {row["frames"] for row in rows.values()} == {"3"}
    assert (rows["same"]["akd"], rows["same"]["aed"]) == (0, 0)
    assert rows["moved"]["akd"] == 2.5
    assert (rows["moved"]["sd"], rows["moved"]["aed"]) == (0, 0)
    assert {row["csim"] for row in rows.values()} == {1}  # embeddings of one number
    assert rows["noise"]["akd"] == 0
    assert 0 < rows["noise"]["aed"] < 0.001
    assert rows["mp4"]["akd"] <= 1
    assert rows["mp4"]["aed_squared"] == pytest.approx(0, abs=1e-4)
