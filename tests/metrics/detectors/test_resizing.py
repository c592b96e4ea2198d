"""Sizes of frames and maps, by hand."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from metrics.detectors.resizing import resize_frame, stretch


def test_frames_are_averaged_to_shrink():
    frame = np.zeros((2, 4, 3), np.uint8)
    frame[:, 2:] = 200
    assert_array_equal(resize_frame(frame, (1, 4))[0, :, 0], [0, 0, 200, 200])
    assert 90 < resize_frame(frame, (1, 1))[0, 0, 0] < 110


def test_maps_are_interpolated_between_the_centres_of_pixels():
    values = np.array([[0, 0.9]], np.float32)
    # The centres of the 8 new pixels lie at -3/8, -1/8, 1/8, 3/8, 5/8, 7/8, ... between the two.
    expected = [[0, 0, 0.9 / 8, 0.9 * 3 / 8, 0.9 * 5 / 8, 0.9 * 7 / 8, 0.9, 0.9]]
    assert_allclose(stretch(values, (1, 8)), expected, atol=1e-6)
    assert stretch(values, (3, 8)).shape == (3, 8)
