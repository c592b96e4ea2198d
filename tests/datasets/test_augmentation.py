"""Compares the batched jitter and resize with torchvision and torch, sample by sample."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torchvision.transforms.v2 import functional

from datasets.augmentation import HUE, NEUTRAL, jitter_colors, resize_and_crop
from tests.helpers.factories import WaitsForTheDevice

ADJUSTMENTS = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)
ORDERS = torch.tensor(list(itertools.permutations(range(4))))


def all_colours():
    """Make two frames, 2 x 3 x 12 x 12: noise, greys, black, white, and two equal channels.

    The last are special cases of HSV.
    """
    frames = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    frames[0, :, :2] = frames[0, :1, :2]
    frames[:, :, 2], frames[:, :, 3] = 0, 1
    for row, (a, b) in enumerate([(0, 1), (1, 2), (0, 2)], start=4):
        frames[:, a, row] = frames[:, b, row]
    frames[1] *= 0.5  # contrast changes about another mean
    return frames


def torchvision_jitter(frame, factors, order):
    for adjustment in order.tolist():
        frame = ADJUSTMENTS[adjustment](frame, factors[adjustment].item())
    return frame


def jitter(image, adjustment, factor):
    factors = torch.tensor([NEUTRAL])
    factors[0, adjustment] = factor
    return jitter_colors(image[None, None], factors, torch.arange(4)[None])[0, 0]


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_every_order_equals_torchvision_with_factors_of_each_sample(strength):
    """They agree but for rounding, also if strong adjustments are clipped one after the other."""
    frames = all_colours().expand(len(ORDERS), -1, -1, -1, -1)
    draws = torch.rand(len(ORDERS), 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    factors = torch.tensor(NEUTRAL) + strength * draws * torch.tensor([1.0, 1.0, 1.0, 0.5])
    found = jitter_colors(frames, factors, ORDERS)
    for sample, (factor, order) in enumerate(zip(factors, ORDERS, strict=True)):
        for frame in range(2):
            expected = torchvision_jitter(frames[sample, frame], factor, order)
            assert_close(found[sample, frame], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("turn", [-0.5, -1 / 3, -0.1, 0.02, 1 / 6, 0.25, 0.5])
def test_hue_equals_torchvision(turn):
    for frame in all_colours():
        expected = functional.adjust_hue(frame, turn)
        assert_close(jitter(frame, HUE, turn), expected, atol=1e-5, rtol=0)


def test_hue_by_hand():
    """A turn by a third takes red to green.

    The hue of (.6, .2, .4) is -1/2 sixth. A turn by a sixth takes it to +1/2: red stays the
    largest, and green rises half of the way from .2 to .6.
    """
    colour = torch.tensor([0.6, 0.2, 0.4]).view(3, 1, 1)
    assert_close(jitter(colour, HUE, 1 / 3), torch.tensor([0.4, 0.6, 0.2]).view(3, 1, 1))
    assert_close(jitter(colour, HUE, 1 / 6), torch.tensor([0.6, 0.4, 0.2]).view(3, 1, 1))


def test_neutral_factors_change_nothing():
    frames = all_colours().expand(len(ORDERS), -1, -1, -1, -1)
    neutral = torch.tensor(NEUTRAL).expand(len(ORDERS), 4)
    assert_close(jitter_colors(frames, neutral, ORDERS), frames, atol=1e-6, rtol=0)


def test_samples_and_frames_do_not_depend_on_each_other():
    frames = torch.rand(2, 2, 3, 8, 8)
    factors = torch.tensor([[1.1, 0.9, 1.1, 0.05], [0.9, 1.1, 0.9, -0.1]])
    order = torch.tensor([[2, 1, 0, 3], [3, 1, 0, 2]])
    both = jitter_colors(frames, factors, order)
    for i, j in itertools.product(range(2), range(2)):
        one = slice(i, i + 1)
        alone = jitter_colors(frames[one, j : j + 1], factors[one], order[one])
        assert_close(both[i, j], alone[0, 0])


# Resize and crop


@pytest.mark.parametrize("size", [(20, 30), (17, 16)])
def test_placement_equals_a_resize_with_crop_or_padding(size):
    """In one batch samples are enlarged and cropped, reduced and padded, or unchanged."""
    height, width = size
    frames = torch.rand(4, 2, 3, *size, dtype=torch.float64)
    placement = torch.tensor(
        [
            [height + 2, width + 3, 1, 2],
            [height + 1, width + 4, 0, 4],
            [height - 3, width - 4, -1, -2],
            [height, width, 0, 0],
        ]
    )
    found = resize_and_crop(frames, placement)
    assert found.shape == frames.shape
    for i, (new_height, new_width, top, left) in enumerate(placement.tolist()):
        expected = F.interpolate(frames[i], (new_height, new_width), mode="bilinear")
        if i == 2:
            expected = F.pad(expected, (2, 2, 1, 2), mode="replicate")
        else:
            expected = expected[..., top : top + height, left : left + width]
        assert_close(found[i], expected)


def test_resize_by_hand():
    """Two pixels become four, at -.25, .25, .75 and 1.25 of them; the crop begins at the second."""
    frames = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).expand(1, 1, 3, 2, 2)
    found = resize_and_crop(frames, torch.tensor([[4, 4, 1, 1]]))
    assert_close(found[0, 0, 0], torch.tensor([[0.25, 0.75], [0.25, 0.75]]))


def test_augmentation_does_not_wait_for_the_device():
    frames, factors = torch.rand(2, 2, 3, 8, 8), torch.tensor([NEUTRAL, NEUTRAL])
    placement = torch.tensor([[9, 9, 0, 1], [7, 7, 0, 0]])
    with WaitsForTheDevice() as waits:
        jitter_colors(resize_and_crop(frames, placement), factors, ORDERS[:2])
    assert waits.found == []
