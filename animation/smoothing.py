"""One-euro filter over time: smooths slow changes much and fast changes little (Casiez, Roussel and
Vogel, CHI 2012).
"""

import math
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from media.timing import Times
from modules.keypoint_detector import Keypoints

SPEED_CUTOFF = 1.0  # Hz; cutoff of the low-pass filter for the speed, as published


class Smoothing(NamedTuple):
    """Settings of the filter.

    frame_rate: frames per second of the driving clip.
    times: times of frames that are not evenly spaced, else None; see `media.timing`.
    min_cutoff: cutoff frequency in Hz while nothing moves, greater than 0; faster changes are then
        treated as jitter. Smaller values smooth more.
    beta: growth of the cutoff with the speed, in Hz per unit a second. Larger values lag less.
    """

    frame_rate: Fraction | float
    times: Times | None = None
    # Chosen on puppets and real heads: the keypoints' second differences fall to 0.6 of their
    # values, and the keypoints lag by 0.7 to 1 frame. With half the beta: 0.5, and 1 to 1.3 frames;
    # with twice the beta: 0.7, and 0.5 to 0.8 frames.
    min_cutoff: float = 1.0
    beta: float = 10.0

    def rate_before(self, position: int) -> float:
        """Frame rate at `position`: 1 / the seconds between this frame and the one before it."""
        if self.times is None or position == 0 or position >= len(self.times):
            return float(self.frame_rate)
        return float(1 / (self.times[position] - self.times[position - 1]))


class FilterState(NamedTuple):
    """State of the filter after a frame.

    value, speed: smoothed value, and smoothed speed in units a second; 1 x ... both.
    num_frames: number of frames so far.
    """

    value: Tensor
    speed: Tensor
    num_frames: int


def one_euro(
    values: Tensor, smoothing: Smoothing, state: FilterState | None
) -> tuple[Tensor, FilterState]:
    """Smooth `values`, B x ..., along their first dimension, each element independently.

    Args:
        values: values of B frames in order.
        state: the state after the frames before them; None at the start of a clip.

    Returns:
        The smoothed values, B x ..., and the state after them. The results do not depend on how a
        clip is divided into batches. The first frame of a clip does not change.

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
    """Smooth every coordinate and every element of the Jacobians with `one_euro`.

    Covariances stay as they are: numbers smoothed one by one need not make a covariance.
    """
    value, jacobian, covariance = keypoints
    if jacobian is None:
        value, state = one_euro(value, smoothing, state)
        return Keypoints(value, None, covariance), state
    numbers, state = one_euro(torch.cat((value, jacobian.flatten(2)), dim=2), smoothing, state)
    jacobian = numbers[..., 2:].unflatten(2, (2, 2))
    return Keypoints(numbers[..., :2], jacobian, covariance), state
