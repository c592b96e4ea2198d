"""One-euro filter: steady where a clip is calm, quick where it moves (Casiez, Roussel and Vogel,
CHI 2012).
"""

import math
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from media.timing import Times
from modules.keypoint_detector import Keypoints

SPEED_CUTOFF = 1.0  # Hz, of the low-pass filter of the speed, as published


class Smoothing(NamedTuple):
    """Settings of the filter.

    frame_rate: of the driving clip, frames per second.
    times: of frames that are not evenly spaced; see `media.timing`.
    min_cutoff: Hz, greater than 0; what swings faster is jitter while nothing moves. Smaller
        values smooth more.
    beta: Hz per unit a second; how much the cutoff grows with the speed. Greater values lag less.
    """

    frame_rate: Fraction | float
    times: Times | None = None
    # Chosen on puppets and real heads: the keypoints' second differences fall to 0.6 of what they
    # were, and the keypoints come 0.7 to 1 frame late. Half the beta: 0.5, 1 to 1.3 frames late;
    # twice the beta: 0.7, 0.5 to 0.8.
    min_cutoff: float = 1.0
    beta: float = 10.0

    def rate_before(self, position: int) -> float:
        """1 / the seconds between frame `position` and the one before it."""
        if self.times is None or position == 0 or position >= len(self.times):
            return float(self.frame_rate)
        return float(1 / (self.times[position] - self.times[position - 1]))


class FilterState(NamedTuple):
    """Smoothed value and smoothed speed (units a second) at the last frame: 1 x ... both.

    num_frames: so far.
    """

    value: Tensor
    speed: Tensor
    num_frames: int


def one_euro(
    values: Tensor, smoothing: Smoothing, state: FilterState | None
) -> tuple[Tensor, FilterState]:
    """Smooth `values`, B x ..., along their first dimension, each element on its own.

    Args:
        values: of B frames in order.
        state: after the frames before them; None at the start of a clip.

    Returns:
        The smoothed values, B x ..., and the state after them. However a clip is cut into batches,
        the numbers are the same; its first frame stays as it is.

    Raises:
        ValueError: a setting is out of range.
    """
    if smoothing.frame_rate <= 0 or smoothing.min_cutoff <= 0 or smoothing.beta < 0:
        raise ValueError(f"frame_rate and min_cutoff must be > 0 and beta >= 0, not {smoothing}")
    if state is None:
        state = FilterState(values[:1], torch.zeros_like(values[:1]), 0)
    smoothed = []
    for value in values.split(1):
        rate = smoothing.rate_before(state.num_frames)
        speed = (value - state.value) * rate
        speed = state.speed.lerp(speed, SPEED_CUTOFF / (SPEED_CUTOFF + rate / (2 * math.pi)))
        cutoff = smoothing.min_cutoff + smoothing.beta * speed.abs()
        # The published 1 / (1 + tau / period), with tau = 1 / (2 pi cutoff).
        weight = cutoff / (cutoff + rate / (2 * math.pi))
        state = FilterState(state.value.lerp(value, weight), speed, state.num_frames + 1)
        smoothed.append(state.value)
    return torch.cat(smoothed), state


def smooth_keypoints(
    keypoints: Keypoints, smoothing: Smoothing, state: FilterState | None
) -> tuple[Keypoints, FilterState]:
    """`one_euro` of every coordinate and every element of the Jacobians. Covariances stay as they
    are: numbers smoothed one by one need not make a covariance.
    """
    value, jacobian, covariance = keypoints
    if jacobian is None:
        value, state = one_euro(value, smoothing, state)
        return Keypoints(value, None, covariance), state
    numbers, state = one_euro(torch.cat((value, jacobian.flatten(2)), dim=2), smoothing, state)
    jacobian = numbers[..., 2:].unflatten(2, (2, 2))
    return Keypoints(numbers[..., :2], jacobian, covariance), state
