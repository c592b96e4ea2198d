"""The colour matrices against torchvision, one adjustment at a time, and the shared jitter."""

import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms.v2 import functional

from datasets.augmentation import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    color_matrices,
    jitter_colors,
)

NEUTRAL = (1.0, 1.0, 1.0, 0.0)
LUMA = torch.tensor([0.299, 0.587, 0.114])


@pytest.fixture
def image():
    """Mild colours, so that nothing is clipped."""
    return 0.3 + 0.3 * torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))


def jitter(image, *adjustments):
    """`image` after (adjustment, factor) pairs in this order, the others neutral."""
    factors = torch.tensor([NEUTRAL])
    for adjustment, factor in adjustments:
        factors[0, adjustment] = factor
    first = [adjustment for adjustment, _ in adjustments]
    order = torch.tensor([first + [a for a in range(4) if a not in first]])
    return jitter_colors(image[None, None], factors, order)[0, 0]


def test_neutral_factors_change_nothing(image):
    assert_close(jitter(image), image, atol=1e-6, rtol=0)


@pytest.mark.parametrize("factor", [0.8, 1.2])
@pytest.mark.parametrize(
    ("adjustment", "reference"),
    [
        (BRIGHTNESS, functional.adjust_brightness),
        (CONTRAST, functional.adjust_contrast),
        (SATURATION, functional.adjust_saturation),
    ],
)
def test_one_adjustment_equals_torchvision(image, adjustment, reference, factor):
    # torchvision's luma is rounded to .2989.
    assert_close(jitter(image, (adjustment, factor)), reference(image, factor), atol=2e-4, rtol=0)


def test_adjustments_compose_in_their_order(image):
    steps = ((SATURATION, 0.7), (CONTRAST, 1.1), (BRIGHTNESS, 1.2))
    expected = functional.adjust_saturation(image, 0.7)
    expected = functional.adjust_brightness(functional.adjust_contrast(expected, 1.1), 1.2)
    assert_close(jitter(image, *steps), expected, atol=5e-4, rtol=0)
    contrast_last = functional.adjust_contrast(functional.adjust_brightness(image, 1.2), 1.1)
    assert_close(
        jitter(image, (BRIGHTNESS, 1.2), (CONTRAST, 1.1)), contrast_last, atol=5e-4, rtol=0
    )


def test_hue_turns_the_colours_and_keeps_luma_and_greys(image):
    turned = jitter(image, (HUE, 0.1))
    assert (turned - image).abs().max() > 0.02
    assert_close(LUMA @ turned.flatten(1), LUMA @ image.flatten(1), atol=1e-5, rtol=0)
    grey = torch.full((3, 2, 2), 0.4)
    assert_close(jitter(grey, (HUE, 0.3)), grey, atol=1e-5, rtol=0)


def test_half_a_turn_twice_is_the_identity(image):
    assert_close(jitter(jitter(image, (HUE, 0.5)), (HUE, 0.5)), image, atol=1e-5, rtol=0)


def test_a_third_of_the_circle_turns_red_towards_green_as_torchvision_does():
    red = torch.tensor([0.6, 0.4, 0.4]).view(3, 1, 1)
    assert jitter(red, (HUE, 1 / 3)).flatten().argmax() == 1
    assert functional.adjust_hue(red, 1 / 3).flatten().argmax() == 1


def test_static_background_keeps_the_same_colours_in_both_frames(image):
    frames = image.expand(2, 2, 3, 8, 8).clone()
    frames[:, 1, :, 4:] = 1.0  # a figure that appears in the second frame
    factors = torch.tensor([[1.1, 0.9, 1.1, 0.05], [0.9, 1.1, 0.9, -0.1]])
    order = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2]])
    jittered = jitter_colors(frames, factors, order)
    background = jittered[..., :4, :]
    assert torch.equal(background[:, 0], background[:, 1])
    assert not torch.allclose(background[0], background[1], atol=1e-2)  # one jitter per sample


def test_samples_do_not_depend_on_each_other(image):
    frames = torch.stack((image, image.flip(-1) * 0.5)).unsqueeze(1)
    factors = torch.tensor([[1.1, 0.9, 1.1, 0.05], [0.9, 1.1, 0.9, -0.1]])
    order = torch.tensor([[2, 1, 0, 3], [3, 1, 0, 2]])
    both = jitter_colors(frames, factors, order)
    for i in range(2):
        alone = jitter_colors(frames[i : i + 1], factors[i : i + 1], order[i : i + 1])
        assert_close(both[i], alone[0])


def test_result_is_clamped():
    bright = jitter(torch.full((3, 2, 2), 0.9), (BRIGHTNESS, 1.5))
    assert torch.equal(bright, torch.ones(3, 2, 2))
    contrasted = jitter(torch.tensor([0.0, 1.0]).expand(3, 1, 2), (CONTRAST, 2.0))
    assert contrasted.min() == 0
    assert contrasted.max() == 1


def test_contrast_pivots_about_the_luma_of_the_mean():
    mean = torch.tensor([[0.2, 0.4, 0.6]])
    factors, order = torch.tensor([[1.0, 0.5, 1.0, 0.0]]), torch.arange(4)[None]
    matrix = color_matrices(factors, order, mean)[0]
    assert_close(matrix[:, :3], 0.5 * torch.eye(3), atol=1e-6, rtol=0)
    luma = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    assert_close(matrix[:, 3], torch.full((3,), 0.5 * luma))


def test_contrast_pivot_is_the_mean_over_the_frames_of_a_pair():
    frames = torch.tensor([0.2, 0.6]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 4, 4)
    jittered = jitter_colors(frames, torch.tensor([[1.0, 0.5, 1.0, 0.0]]), torch.arange(4)[None])
    assert_close(jittered[0, :, 0, 0, 0], torch.tensor([0.3, 0.5]))  # towards 0.4
