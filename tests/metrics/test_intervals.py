"""Intervals by hand and against scipy."""

import numpy as np
import pytest
from scipy import stats

from metrics.intervals import (
    Interval,
    clip_means,
    interval,
    over_clips,
    over_frames,
)


def test_by_hand():
    mean, low, high, count = interval(np.array([1.0, 2.0, 3.0]))  # a standard deviation of 1
    half = 4.302653 / 3**0.5  # Student's t for 2 degrees of freedom
    assert (mean, count) == (2, 3)
    assert (low, high) == (pytest.approx(2 - half), pytest.approx(2 + half))


def test_equals_scipy():
    values = np.random.default_rng(0).normal(3, 2, 40)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval(values) == pytest.approx((values.mean(), expected.low, expected.high, 40))


def test_nan_is_left_out_and_few_values_have_no_interval():
    assert interval(np.array([1.0, np.nan, 3.0])) == interval(np.array([1.0, 3.0]))
    assert interval(np.array([np.nan, 3.0])) == Interval(3, None, None, 1)
    assert interval(np.array([np.nan])) == interval(np.array([])) == Interval(None, None, None, 0)


def test_equal_values():
    assert interval(np.full(5, 0.25)) == Interval(0.25, 0.25, 0.25, 5)


def test_float32_frames_are_summed_in_float64():
    frames = np.full(4_000_000, 0.1, dtype=np.float32)
    assert interval(frames).mean == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_frames_and_clips():
    """For clips of 4 and 2 frames: `over_clips` counts each clip once, `over_frames` each frame."""
    clips = [np.array([1.0, 1.0, 3.0, 3.0]), np.array([8.0, np.nan])]
    assert over_frames(clips) == interval(np.array([1.0, 1.0, 3.0, 3.0, 8.0]))
    assert over_clips(clips) == interval(np.array([2.0, 8.0]))
    assert over_clips(clips).mean == 5
    assert over_frames(clips).mean == 3.2


def test_clip_without_a_value(recwarn):
    clips = [np.array([np.nan, np.nan]), np.array([1.0, 2.0]), np.array([])]
    np.testing.assert_array_equal(clip_means(clips), [np.nan, 1.5, np.nan])
    assert over_clips(clips) == Interval(1.5, None, None, 1)
    assert not recwarn.list
