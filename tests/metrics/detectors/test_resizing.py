"""Sizes of frames and maps, by hand."""

import numpy as np
from numpy.testing import assert_array_equal

from metrics.detectors.resizing import resize_frame, threshold_at_size


def test_frames_are_averaged_to_shrink():
    frame = np.zeros((2, 4, 3), np.uint8)
    frame[:, 2:] = 200
    assert_array_equal(resize_frame(frame, (1, 4))[0, :, 0], [0, 0, 200, 200])
    assert 90 < resize_frame(frame, (1, 1))[0, 0, 0] < 110


def test_maps_are_thresholded_where_they_end_up():
    """Between the centres of two pixels, 0 and 0.9, the value 0.5 is reached at 5/9 of the way."""
    values = np.array([[0, 0.9]], np.float32)
    # The centres of the 8 new pixels lie at -3/8, -1/8, 1/8, 3/8, 5/8, 7/8, ... of this way.
    expected = [[False, False, False, False, True, True, True, True]]
    assert_array_equal(threshold_at_size(values, (1, 8)), expected)
    assert_array_equal(threshold_at_size(values / 2, (3, 8)), np.zeros((3, 8), bool))
