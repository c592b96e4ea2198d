"""Cross-identity metrics by hand, and with a detector that reads pixels."""

import numpy as np
import pytest

from metrics.cross_identity import CrossIdentity, pose_distance
from metrics.detectors.detector import Description

SQUARE = np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]])


class Reader:
    """A detector that reads the first pixel: red is the identity, green shears the landmarks."""

    description = Description("reader", "none", "four points", "none")

    def __init__(self):
        self.frames = []

    def landmarks(self, frame):
        self.frames.append(int(frame[0, 0, 2]))
        if frame[0, 0, 0] == 0:  # nobody
            return np.full((4, 2), np.nan)
        return SQUARE + np.array([[0.0, 0], [0, 0], [1, 0], [1, 0]]) * (frame[0, 0, 1] / 100)

    def embedding(self, frame):
        self.frames.append(int(frame[0, 0, 2]))
        if frame[0, 0, 0] == 0:
            return np.full(2, np.nan)
        return np.array([frame[0, 0, 0] / 10, 0.0])


def frames(*pixels):
    return np.array([np.full((4, 4, 3), pixel, np.uint8) for pixel in pixels])


def test_pose_distance_ignores_place_and_size():
    assert pose_distance(SQUARE * 3 + 7, SQUARE) == pytest.approx(0, abs=1e-12)
    turned = SQUARE[[1, 2, 3, 0]]  # each corner is one side away from its target
    assert pose_distance(turned, SQUARE) == pytest.approx(2)
    assert pose_distance(turned, SQUARE * 10) == pytest.approx(20)  # in pixels of the target


def test_pose_distance_of_landmarks_found_in_both():
    missing = SQUARE.copy()
    missing[2:] = np.nan
    assert pose_distance(missing + 1, SQUARE) == pytest.approx(0)
    missing[1] = np.nan
    assert np.isnan(pose_distance(missing, SQUARE))
    assert np.isnan(pose_distance(np.ones((4, 2)), SQUARE))


def test_means():
    """Of two frames one meets the driving pose and keeps the identity, one shows nobody."""
    (source,) = frames((10, 0, 0))
    cross = CrossIdentity(Reader(), source)
    cross.add(frames((30, 100, 1)), frames((11, 100, 2)))
    cross.add(frames((30, 100, 3)), frames((0, 0, 4)))
    leaning = SQUARE + np.array([[0.0, 0], [0, 0], [1, 0], [1, 0]])
    assert cross.means() == {
        "pose_distance": pytest.approx(0, abs=1e-12),
        "source_pose_distance": pytest.approx(pose_distance(SQUARE, leaning)),
        "found": 0.5,
        "identity_distance": pytest.approx(0.1),
        "csim": pytest.approx(1),
        "driving_identity_distance": pytest.approx(2.0),
        "driving_csim": pytest.approx(1),
    }


def test_metrics_are_nan_if_no_frame_has_a_face():
    (source,) = frames((0, 0, 0))
    cross = CrossIdentity(Reader(), source)
    cross.add(frames((0, 0, 1)), frames((0, 0, 2)))
    found = cross.means()
    assert found.pop("found") == 0
    assert all(np.isnan(value) for value in found.values())


def test_a_detector_is_asked_twice_in_a_row_about_each_frame():
    """So a detector that remembers its last frame searches each one only once."""
    reader = Reader()
    (source,) = frames((10, 0, 0))
    CrossIdentity(reader, source).add(frames((30, 0, 1)), frames((11, 0, 2)))
    assert reader.frames == [0, 0, 2, 2, 1, 1]


def test_a_detector_with_embeddings_only():
    class Encoder:
        description = Reader.description

        def embedding(self, frame):
            return np.array([float(frame[0, 0, 0]), float(frame[0, 0, 1])])

    (source,) = frames((3, 4, 0))
    cross = CrossIdentity(Encoder(), source)
    cross.add(frames((8, 4, 0)), frames((4, 3, 0)))
    assert cross.means() == {
        "identity_distance": pytest.approx(2**0.5),
        "csim": pytest.approx(24 / 25),
        "driving_identity_distance": 5.0,
        "driving_csim": pytest.approx(40 / (5 * 80**0.5)),
    }
