"""Cut masks by hand, against a slow loop, and by their statistics."""

import math
from fractions import Fraction

import pytest
import torch
from torch.testing import assert_close

from common.batch_random import BatchRandom
from modules.cut_masks import (
    certain_background,
    foreground_occlusion,
    mix,
    priority_cut,
    rectangle_cut,
    resize_cut,
)
from tests.helpers.factories import WaitsForTheDevice


def maps(*rows):
    """A map of the rows of numbers, 1 x 1 x h x w."""
    return torch.tensor(rows)[None, None]


# Eq. 1 and 2


BACKGROUND = maps([0.9, 0.5, 0.1], [0.2, 0.49, 0.3], [0.0, 0.7, 0.4])
OCCLUSION = maps([0.0, 0.1, 0.8], [0.3, 0.6, 0.2], [1.0, 0.05, 0.3])


def test_certain_background_by_hand():
    expected = maps([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    assert torch.equal(certain_background(BACKGROUND, 0.5), expected)  # 0.5 itself is certain
    expected = maps([1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert torch.equal(certain_background(BACKGROUND.double(), 0.71), expected.double())


def test_foreground_occlusion_by_hand():
    background = certain_background(BACKGROUND, 0.5)
    expected = maps([1.0, 1.0, 0.8], [0.3, 0.6, 0.2], [1.0, 1.0, 0.3])
    assert_close(foreground_occlusion(background, OCCLUSION), expected)
    # Eq. 1 as it stands, for a background that is not binary: 0.25 + 0.75 * 0.4.
    assert_close(
        foreground_occlusion(torch.tensor([0.25]), torch.tensor([0.4])), torch.tensor([0.55])
    )


def test_mix_by_hand():
    real = torch.tensor([[[[0.1, 0.2]], [[0.3, 0.4]]]])
    generated = torch.tensor([[[[0.9, 0.8]], [[0.7, 0.6]]]])
    cut_mask = torch.tensor([[[[1.0, 0.0]]]])  # the same for every channel
    expected = torch.tensor([[[[0.1, 0.8]], [[0.3, 0.6]]]])
    assert torch.equal(mix(cut_mask, real, generated), expected)


# PriorityCut


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.0, maps([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])),
        (0.01, maps([1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0])),
        # 1.8 of 6 pixels; of the two with 0.3 the first is taken.
        (0.3, maps([1.0, 1.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0])),
        (0.5, maps([1.0, 1.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0])),
        (0.8, maps([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0])),
        # The visible pixel of the foreground is cut, the occluded background never is.
        (1.0, maps([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])),
    ],
)
def test_priority_cut_by_hand(fraction, expected):
    cut_mask = priority_cut(BACKGROUND, OCCLUSION, torch.tensor([fraction]), threshold=0.5)
    assert torch.equal(cut_mask, expected)


def test_threshold_of_the_cut():
    """Only the first pixel is background here. It has the lowest value of all but is not cut."""
    cut_mask = priority_cut(BACKGROUND, OCCLUSION, torch.tensor([0.25]), threshold=0.9)
    assert torch.equal(cut_mask, maps([1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 0.0, 1.0]))


def slow_priority_cut(background_weight, occlusion_map, fraction, threshold):
    """The cut mask of one sample, pixel by pixel, with `fraction` as an exact decimal number."""
    weights, values = background_weight.flatten().tolist(), occlusion_map.flatten().tolist()
    foreground = [i for i, weight in enumerate(weights) if weight < threshold]
    chosen = sorted(foreground, key=lambda i: (values[i], i))
    cut_mask = torch.ones(len(values))
    cut_mask[chosen[: math.ceil(Fraction(str(fraction)) * len(foreground))]] = 0
    return cut_mask.view_as(occlusion_map)


FRACTIONS = [0.0, 1e-6, 0.05, 0.07, 0.1, 0.2, 0.3, 0.6, 0.7, 0.9, 0.999999, 1.0]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("levels", [2, 5, 10**6])  # few of them: mostly ties, also at 0 and at 1
def test_priority_cut_agrees_with_a_slow_loop(levels, threshold):
    generator = torch.Generator().manual_seed(levels)
    shape = (len(FRACTIONS), 1, 10, 14)
    weights = torch.rand(shape, generator=generator)
    occlusion_map = (torch.rand(shape, generator=generator) * (levels - 1)).round() / (levels - 1)
    fraction = torch.tensor(FRACTIONS)
    batch = priority_cut(weights, occlusion_map, fraction, threshold=threshold)
    for i, written in enumerate(FRACTIONS):
        one = slice(i, i + 1)
        expected = slow_priority_cut(weights[one], occlusion_map[one], written, threshold)
        assert torch.equal(batch[one], expected)
        alone = priority_cut(weights[one], occlusion_map[one], fraction[one], threshold=threshold)
        assert torch.equal(alone, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_counts(dtype):
    """The count is ceil(k * n) for every n, even if k * n is whole but k and k * n are rounded."""
    num_foreground = torch.arange(1001)
    # Sample i has i pixels of foreground.
    weights = (torch.arange(1000) >= num_foreground[:, None]).float().view(-1, 1, 20, 50)
    occlusion_map = torch.rand(weights.shape)
    for percent in (0, 1, 7, 10, 29, 30, 57, 70, 90, 100):
        fraction = torch.tensor(percent / 100, dtype=dtype).expand(1001)
        cut_mask = priority_cut(weights, occlusion_map, fraction)
        found = (1 - cut_mask).sum(dim=(1, 2, 3)).long()
        assert torch.equal(found, -(-percent * num_foreground // 100))


def test_count_at_the_largest_map_and_in_half_precision():
    """A fraction of 1 cuts exactly the foreground, though bf16 cannot represent 257 or 65535."""
    for num_foreground in (257, 65535):
        weights = (torch.arange(65536) >= num_foreground).float().view(1, 1, 256, 256)
        for dtype in (torch.float32, torch.bfloat16):
            fraction = torch.ones(1, dtype=dtype)
            assert torch.equal(priority_cut(weights, torch.rand(weights.shape), fraction), weights)


def test_lowest_values_of_the_foreground_are_cut():
    shape = (8, 1, 16, 24)
    # In the memory layout of the dense motion: one channel of many, channels-last.
    motion_weights = torch.randn(8, 4, 16, 24).softmax(dim=1)
    weights = motion_weights.contiguous(memory_format=torch.channels_last)[:, :1]
    occlusion_map = torch.rand(shape)
    fraction = torch.linspace(0.05, 0.95, 8)
    cut_mask = priority_cut(weights, occlusion_map, fraction, threshold=0.4)
    assert cut_mask.shape == shape
    assert set(cut_mask.unique().tolist()) == {0.0, 1.0}
    background = weights >= 0.4
    assert (cut_mask[background] == 1).all()
    for sample in range(8):
        cut = cut_mask[sample] == 0
        kept = (cut_mask[sample] == 1) & ~background[sample]
        assert occlusion_map[sample][cut].max() <= occlusion_map[sample][kept].min()


def test_no_foreground_gives_all_ones():
    weights = torch.stack([torch.ones(1, 4, 6), torch.zeros(1, 4, 6)])
    occlusion_map = torch.zeros(2, 1, 4, 6)
    cut_mask = priority_cut(weights, occlusion_map, torch.ones(2))
    assert torch.equal(cut_mask, weights)  # the other sample is all foreground and is cut entirely


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_cut_masks_have_the_dtype_of_the_maps_and_no_gradient(dtype):
    weights, occlusion_map = torch.rand(2, 1, 6, 8), torch.rand(2, 1, 6, 8)
    # Values that bf16 represents exactly, so that the order is the same.
    occlusion_map = occlusion_map.bfloat16().float()
    fraction = torch.tensor([0.3, 0.6])
    expected = priority_cut((weights >= 0.5).float(), occlusion_map, fraction)
    found = priority_cut(
        (weights >= 0.5).to(dtype).requires_grad_(),
        occlusion_map.to(dtype).requires_grad_(),
        fraction,
    )
    assert found.dtype == dtype
    assert not found.requires_grad
    assert torch.equal(found.float(), expected)
    rectangle = rectangle_cut(
        weights, occlusion_map.to(dtype), fraction, random=BatchRandom(torch.Generator())
    )
    assert rectangle.dtype == dtype


def test_maps_that_are_not_finite_still_give_a_mask():
    """The training step is skipped anyway; the other samples of the batch are not affected."""
    weights, occlusion_map = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    fraction = torch.tensor([0.5, 0.5, 0.5])
    expected = priority_cut(weights, occlusion_map, fraction)
    weights[0], occlusion_map[0] = torch.nan, torch.nan
    occlusion_map[1, 0, 0] = torch.nan
    cut_mask = priority_cut(weights, occlusion_map, fraction)
    assert set(cut_mask.unique().tolist()) == {0.0, 1.0}
    assert cut_mask[0].sum() == 8  # NaN is not background: half of 16 pixels
    assert torch.equal(cut_mask[2], expected[2])


def test_cut_masks_do_not_wait_for_the_device():
    weights, occlusion_map = torch.rand(2, 2, 1, 8, 8)
    draws = BatchRandom(torch.Generator())
    with WaitsForTheDevice() as waits:
        fraction = draws.beta(1.0, 1.0, 2)
        for cut_mask in (
            priority_cut(weights, occlusion_map, fraction),
            rectangle_cut(weights, occlusion_map, fraction, random=draws),
        ):
            mix(resize_cut(cut_mask, (16, 16)), torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16))
    assert waits.found == []
    with WaitsForTheDevice() as waits:  # the check does notice a wait
        torch.tensor([1.0]).item()
    assert len(waits.found) == 2


# Rectangles


class Given:
    """A BatchRandom with numbers set by the test: rows of (vertical, horizontal, exchange)."""

    def __init__(self, *rows):
        self.rows = torch.tensor(rows)

    def uniform(self, batch, *shape):
        assert (batch, *shape) == self.rows.shape
        return self.rows


def rectangles(height, width, fraction, draws):
    fraction = torch.as_tensor(fraction)
    shape = torch.rand(len(fraction), 1, height, width)
    return rectangle_cut(shape, shape, fraction, random=draws)


def drawn(height, width, fraction, batch, seed=0):
    draws = BatchRandom(torch.Generator().manual_seed(seed))
    return rectangles(height, width, torch.as_tensor(fraction).expand(batch), draws)


# A quarter of 8 x 12 has the sides 4 x 6: 2 and 3 pixels on each side of the centre.
@pytest.mark.parametrize(
    ("vertical", "horizontal", "rows", "columns"),
    [
        (0.5, 0.5, (2, 6), (3, 9)),  # about pixel (4, 6)
        (0.55, 0.55, (2, 6), (3, 9)),
        (0.0, 0.0, (0, 2), (0, 3)),  # about the first pixel: a quarter of the box is left
        (0.999, 0.999, (5, 8), (8, 12)),  # about the last, (7, 11)
        (0.2, 0.9, (0, 3), (7, 12)),  # about (1, 10)
    ],
)
def test_rectangle_by_hand(vertical, horizontal, rows, columns):
    expected = torch.ones(8, 12)
    expected[slice(*rows), slice(*columns)] = 0
    draws = Given((vertical, horizontal, 0.7), (vertical, horizontal, 0.3))
    inside, outside = rectangles(8, 12, [0.25, 0.25], draws)
    assert torch.equal(inside[0], expected)
    assert torch.equal(outside[0], 1 - expected)  # exchanged: the box is real


@pytest.mark.parametrize(
    ("size", "fraction", "area"),
    [
        ((8, 8), 0.25, 4 * 4),
        ((6, 12), 1 / 9, 2 * 4),
        ((10, 20), 0.65, 8 * 16),
        ((10, 10), 0.5, 6 * 6),  # side 7.07: 3 pixels on each side of the centre
        ((8, 8), 0.0, 0),
        ((8, 8), 0.05, 0),  # side 1.8: 0 pixels on each side
        ((8, 6), 1.0, 8 * 6),
    ],
)
def test_area_of_a_rectangle_about_the_middle(size, fraction, area):
    (cut_mask,) = rectangles(*size, [fraction], Given((0.5, 0.5, 0.9)))
    assert (1 - cut_mask).sum() == area


def test_every_pixel_is_generated_half_of_the_time():
    """This holds at the centre, in the corners and everywhere else, for areas from Beta(1, 1)."""
    batch = 20000
    draws = BatchRandom(torch.Generator().manual_seed(3))
    generated = 1 - rectangles(16, 24, draws.beta(1.0, 1.0, batch), draws).mean(dim=(0, 1))
    assert (generated - 0.5).abs().max() < 5 * math.sqrt(0.25 / batch)
    # Without the exchange the centre would be in the box far more often than a corner.
    draws = Given(*torch.cat((torch.rand(batch, 2), torch.ones(batch, 1)), dim=1).tolist())
    boxes = 1 - rectangles(16, 24, torch.rand(batch), draws).mean(dim=(0, 1))
    assert boxes[8, 12] > 0.4
    assert boxes[0, 0] < 0.2


def test_every_centre_is_equally_likely():
    """Boxes of 2 x 2 in maps of 8 x 4; a box covers the row and column before its centre too."""
    batch = 16000
    cut_mask = drawn(8, 4, 0.26, batch)  # sides of 4.08 and 2.04
    box = torch.where(cut_mask.mean(dim=(1, 2, 3), keepdim=True) < 0.5, cut_mask, 1 - cut_mask)
    bottom = 7 - box.flip(2).amax(dim=3).argmax(dim=2).flatten()
    right = 3 - box.flip(3).amax(dim=2).argmax(dim=2).flatten()
    # The last row of a box is its centre + 1, at most 7; its last column is its centre.
    counts = torch.bincount(4 * bottom + right, minlength=32).view(8, 4) / batch
    expected = torch.full((8, 4), 1 / 32)
    expected[0], expected[7] = 0, 2 / 32
    assert (counts - expected).abs().max() < 5 * math.sqrt(2 / 32 / batch)


def test_rectangles_follow_from_the_generator_and_differ_between_samples():
    first = drawn(16, 16, 0.1, 500)
    assert torch.equal(first, drawn(16, 16, 0.1, 500))
    assert not torch.equal(first, drawn(16, 16, 0.1, 500, seed=1))
    assert len(first.flatten(1).unique(dim=0)) > 50


# Resizing


@pytest.mark.parametrize(("height", "width"), [(2, 3), (4, 6), (16, 48)])
def test_resized_mask_repeats_its_pixels(height, width):
    cut_mask = (torch.rand(2, 1, 2, 3) > 0.5).float()
    factors = (height // 2, width // 3)
    expected = cut_mask.repeat_interleave(factors[0], 2).repeat_interleave(factors[1], 3)
    assert torch.equal(resize_cut(cut_mask, (height, width)), expected)


def test_resized_mask_by_hand():
    """Each pixel gets the value of the pixel with the nearest centre, on both sides."""
    line = maps([1.0, 0.0, 0.0])
    assert torch.equal(resize_cut(line, (1, 2)), maps([1.0, 0.0]))
    line = maps([0.0, 1.0, 0.0])
    assert torch.equal(resize_cut(line, (1, 2)), maps([0.0, 0.0]))
    assert torch.equal(resize_cut(line, (1, 5)), maps([0.0, 0.0, 1.0, 0.0, 0.0]))


@pytest.mark.parametrize("size", [(100, 70), (64, 65), (10, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resized_mask_has_only_zeros_and_ones(size, dtype):
    cut_mask = (torch.rand(2, 1, 16, 24) > 0.5).to(dtype)
    resized = resize_cut(cut_mask, size)
    assert resized.shape == (2, 1, *size)
    assert resized.dtype == dtype
    assert set(resized.unique().tolist()) == {0.0, 1.0}
