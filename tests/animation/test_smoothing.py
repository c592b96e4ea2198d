"""The one-euro filter by hand, and its purpose: less jitter, little lag."""

import math
from fractions import Fraction

import pytest
import torch
from torch.testing import assert_close

from animation.smoothing import Smoothing, one_euro, smooth_keypoints
from modules.keypoint_detector import Keypoints

DEFAULT = Smoothing(25)


def smooth(values, smoothing=DEFAULT):
    return one_euro(torch.as_tensor(values), smoothing, None)[0]


def test_published_formulas_by_hand():
    """At 2 pi frames a second a low-pass filter of cutoff c has the weight c / (c + 1).

    Frame 1: speed 2 pi, smoothed pi; cutoff 1 + pi / 2 = 2.5708; weight 0.71995.
    Frame 2: speed (1 - 0.71995) 2 pi = 1.7596, smoothed 2.4506; cutoff 2.2253; weight 0.68995;
    value 0.71995 + 0.68995 * 0.28005 = 0.91317.
    """
    smoothing = Smoothing(2 * math.pi, min_cutoff=1.0, beta=0.5)
    found = smooth([0.0, 1.0, 1.0], smoothing)
    assert_close(found, torch.tensor([0.0, 0.71995, 0.91317]), atol=1e-5, rtol=0)
    assert_close(smooth([0.0, -1.0, -1.0], smoothing), -found)
    assert_close(smooth([3.0, 4.0, 4.0], smoothing), found + 3)


def test_without_beta_it_is_a_low_pass_filter():
    """Its weight is always 1 / (1 + rate / (2 pi cutoff)): 0.1116 for 0.5 Hz at 25 a second."""
    found = smooth([0.0, 1.0, 1.0], Smoothing(25, min_cutoff=0.5, beta=0.0))
    weight = 1 / (1 + 25 / math.pi)
    assert_close(found, torch.tensor([0.0, weight, 1 - (1 - weight) ** 2]))


def test_constant_values_do_not_change():
    values = torch.rand(1, 3, 2).expand(20, -1, -1)
    assert torch.equal(smooth(values), values)


def test_step_is_followed_to_its_end():
    found = smooth([0.0] + [0.5] * 50)
    assert (found.diff() >= 0).all()
    assert 0 < found[1] < 0.5
    assert found[-1] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batches_do_not_change_the_numbers(size):
    values = torch.randn(20, 4, 6)
    whole, end = one_euro(values, DEFAULT, None)
    state, parts = None, []
    for part in values.split(size):
        smoothed, state = one_euro(part, DEFAULT, state)
        parts.append(smoothed)
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(state.value, end.value)
    assert torch.equal(state.speed, end.speed)


def test_elements_are_smoothed_on_their_own():
    values = torch.randn(12, 3, 5)
    whole = smooth(values)
    assert torch.equal(whole[:, 1, 2], smooth(values[:, 1, 2]))


def test_less_jitter_and_little_lag():
    """Noise of 0.01, or 1.3 of 256 pixels, jitters less than a third as much. A ramp of 0.5 a
    second, or 64 of 256 pixels, lags by less than a frame.
    """
    noise = 0.01 * torch.randn(400, 10, 2, generator=torch.Generator().manual_seed(0))
    shake, smoothed = (x.diff(n=2, dim=0).abs().mean() for x in (noise, smooth(noise)))
    assert smoothed < shake / 3
    assert smooth(noise)[50:].std() < noise.std() / 2
    ramp = 0.5 / 25 * torch.arange(100.0)
    lag = (ramp - smooth(ramp)) / (0.5 / 25)  # frames
    assert 0 < lag[-1] < 1


def test_frame_rate_sets_the_time():
    """A ramp lags by 1 / (2 pi cutoff) = 0.159 seconds, at 25 frames a second and at 50."""
    for rate in (25, 50):
        ramp = torch.arange(4.0 * rate) / rate
        late = ramp - smooth(ramp, Smoothing(rate, min_cutoff=1.0, beta=0.0))
        assert late[-1] == pytest.approx(1 / (2 * math.pi), abs=1e-3)


def test_keypoints_and_jacobians():
    keypoints = Keypoints(torch.randn(9, 4, 2), torch.randn(9, 4, 2, 2))
    smoothed, state = smooth_keypoints(keypoints, DEFAULT, None)
    assert torch.equal(smoothed.value, smooth(keypoints.value))
    assert torch.equal(smoothed.jacobian, smooth(keypoints.jacobian))
    start, rest = (
        Keypoints(keypoints.value[s], keypoints.jacobian[s]) for s in (slice(5), slice(5, None))
    )
    first, middle = smooth_keypoints(start, DEFAULT, None)
    last, end = smooth_keypoints(rest, DEFAULT, middle)
    assert torch.equal(torch.cat((first.jacobian, last.jacobian)), smoothed.jacobian)
    assert torch.equal(end.value, state.value)


def test_keypoints_without_jacobians():
    keypoints = Keypoints(torch.randn(9, 4, 2), None)
    smoothed, _ = smooth_keypoints(keypoints, DEFAULT, None)
    assert smoothed.jacobian is None
    assert smoothed.covariance is None
    assert torch.equal(smoothed.value, smooth(keypoints.value))


def test_covariances_stay_as_they_are():
    keypoints = Keypoints(torch.randn(9, 4, 2), None, torch.randn(9, 4, 2, 2))
    smoothed, _ = smooth_keypoints(keypoints, DEFAULT, None)
    assert torch.equal(smoothed.value, smooth(keypoints.value))
    assert torch.equal(smoothed.covariance, keypoints.covariance)


@pytest.mark.parametrize("bad", [{"frame_rate": 0}, {"min_cutoff": 0.0}, {"beta": -1.0}])
def test_settings_out_of_range(bad):
    with pytest.raises(ValueError, match="min_cutoff must be > 0"):
        smooth([0.0, 1.0], DEFAULT._replace(**bad))


def test_uneven_frames_are_filtered_by_their_times():
    """After a pause of 10 seconds earlier values hardly count; close frames are smoothed more.

    With beta 0 and cutoff 1 the weight of a new value is 1 / (1 + 25 / 2 pi) = 0.2008 at 25 frames
    a second, 1 / (1 + 0.1 / 2 pi) = 0.9843 at 0.1 a second, and 0.0591 at 100 a second.
    """
    times = [Fraction(number, 100) for number in (0, 4, 1004, 1005, 1010)]
    smoothing = Smoothing(25, times, min_cutoff=1.0, beta=0.0)
    assert smooth([0.0, 1.0], smoothing)[1] == pytest.approx(0.2008, abs=1e-4)
    found = smooth([0.0, 0.0, 1.0, 0.0], smoothing).tolist()
    assert found[2:] == pytest.approx([0.9843, 0.9843 * (1 - 0.0591)], abs=1e-4)
    values = torch.tensor([0.0, 0.3, 1.0, 0.0])
    first, state = one_euro(values[:2], smoothing, None)
    assert_close(
        torch.cat((first, one_euro(values[2:], smoothing, state)[0])), smooth(values, smoothing)
    )
