"""Masks of detectors and of files: opacity, order, filter over time."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from animation.figure_masks import (
    DetectedMasks,
    GivenMasks,
    SmoothedMasks,
    feathered,
    opacity_of_picture,
)
from animation.smoothing import Smoothing
from common.errors import UserError
from tests.helpers.detectors import Brightness


def grey(value, size=(8, 8)):
    return np.full((*size, 3), value, np.uint8)


def test_detected_masks_are_those_of_each_frame():
    finder = Brightness()
    masks = DetectedMasks(finder)
    find = masks.start()
    frames = torch.tensor([0.0, 0.0, 1.0, 0.4]).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    found = find(frames)
    assert_close(found.flatten(1).mean(1), torch.tensor([0.0, 0.0, 1.0, 0.4]))
    assert finder.num_frames == 3  # the same frame is not searched again
    opacity = masks.opacity(found, (16, 16))
    assert opacity.shape == (4, 1, 16, 16)
    # 0.4 is 0.3 of the way up the ramp from 0.25 to 0.75.
    assert_close(opacity[3, 0, 3, 3], torch.tensor(3 * 0.3**2 - 2 * 0.3**3))


def test_feathered_keeps_0_and_1():
    masks = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).view(5, 1, 1, 1)
    assert feathered(masks, 0.5, (1, 1)).flatten().tolist() == [0, 0, 0.5, 1, 1]


def test_grey_masks_are_used_as_they_are():
    mask = grey(0)
    mask[:, 4:] = 255
    mask[:, 3] = 51
    assert_allclose(opacity_of_picture(mask)[0], [0, 0, 0, 0.2, 1, 1, 1, 1], atol=1e-6)


def test_hard_masks_get_a_soft_edge():
    mask = grey(0)
    mask[:, 4:] = 255
    expected = [0, 0, 0, 0.25, 0.75, 1, 1, 1]
    assert_allclose(opacity_of_picture(mask)[0], expected, atol=1e-6)


def test_given_masks_follow_the_frames_and_start_anew():
    masks = GivenMasks([grey(0), grey(255), grey(51)], "--masks files")
    frames = torch.zeros(2, 3, 8, 8)
    for _ in range(2):
        find = masks.start()
        found = torch.cat((find(frames), find(frames[:1])))
        assert_close(found[:, 0, 0, 0], torch.tensor([0.0, 1.0, 0.2]))
        with pytest.raises(UserError, match="--masks files: ends after 3 masks; give one a frame"):
            find(frames[:1])


def test_smoothed_masks_flicker_less():
    values = [255, 230, 255, 230, 255, 230]
    masks = GivenMasks([grey(value) for value in values], "masks")
    frames = torch.zeros(3, 3, 8, 8)

    def levels(source):
        find = source.start()
        return torch.cat((find(frames), find(frames)))[:, 0, 0, 0]

    sharp, smoothed = levels(masks), levels(SmoothedMasks(masks, Smoothing(25)))
    assert smoothed[0] == sharp[0]
    assert smoothed.diff().abs().mean() < 0.5 * sharp.diff().abs().mean()
    assert torch.equal(levels(SmoothedMasks(masks, Smoothing(25))), smoothed)
