"""The mask perturbation by hand, by its statistics and against slow loops."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from common.batch_random import BatchRandom
from modules.perturbation import (
    _apply,
    _AxisDraws,
    _draw,
    _Perturbation,
    _strip_scaling,
    perturb,
    shrink,
)

PUBLISHED = {
    "num_strips": 6,
    "pivots": (15 / 64, 45 / 64),
    "scales": (0.75, 1.25),
    "threshold": 100,
    "noise": 20,
}


def published(foreground_mask, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    return perturb(foreground_mask, **PUBLISHED | changes, random=BatchRandom(generator))


def drawn(foreground_mask, seed=0, **changes):
    options = PUBLISHED | changes
    del options["threshold"]
    generator = torch.Generator().manual_seed(seed)
    return _draw(foreground_mask, **options, random=BatchRandom(generator))


def sample_strip(line, start, end, scale):
    """Scale the strip of pixels `start` .. `end` - 1 about its centre, one pixel at a time."""
    centre = (start + end - 1) / 2
    scaled = np.zeros(end - start)
    for x in range(start, end):
        position = centre + (x - centre) / scale
        for neighbour in (int(np.floor(position)), int(np.floor(position)) + 1):
            if start <= neighbour < end:
                scaled[x - start] += line[neighbour] * (1 - abs(position - neighbour))
    return scaled


def scale_rows(mask, cuts, scales):
    """Cut every row of an h x w mask at `cuts` and scale each piece along the row."""
    edges = [0, *cuts, mask.shape[1]]
    scaled = np.zeros_like(mask)
    for y in range(mask.shape[0]):
        for i, (start, end) in enumerate(pairwise(edges)):
            scaled[y, start:end] = sample_strip(mask[y], start, end, scales[i])
    return scaled


def slow_perturbation(mask, columns, rows, noise, threshold):
    """Perturb one h x w mask in the order of the definition, pass after pass."""
    mask = scale_rows(mask, columns.cuts, columns.strip_scales)
    mask = scale_rows(mask.T, [], rows.scale).T
    mask = scale_rows(mask.T, rows.cuts, rows.strip_scales).T
    mask = scale_rows(mask, [], columns.scale)
    mask = np.where(mask <= threshold / 255, 0, mask)
    return np.clip(mask + noise, 0, 1)


@pytest.mark.parametrize(
    ("height", "width", "num_strips"), [(16, 16, 6), (12, 20, 3), (8, 8, 6), (7, 9, 1)]
)
def test_equals_the_slow_loops_given_the_same_draws(height, width, num_strips):
    mask = torch.rand(3, 1, height, width)
    draws = drawn(mask, num_strips=num_strips)
    fast = _apply(mask, draws, threshold=60)
    for b in range(len(mask)):
        columns, rows = (
            _AxisDraws(*(tensor[b].tolist() for tensor in axis))
            for axis in (draws.columns, draws.rows)
        )
        slow = slow_perturbation(
            mask[b, 0].double().numpy(), columns, rows, draws.noise[b, 0].numpy(), threshold=60
        )
        assert_close(fast[b, 0], torch.from_numpy(slow).float(), atol=1e-5, rtol=0)


def test_public_function_applies_what_is_drawn():
    mask = torch.rand(2, 1, 16, 16)
    assert torch.equal(published(mask), _apply(mask, drawn(mask), PUBLISHED["threshold"]))


def test_magnifying_matrix_by_hand():
    # The centre is at 1.5 of 4 pixels: they take the input at 0.75, 1.25, 1.75 and 2.25.
    matrix = _strip_scaling(4, torch.tensor([[2.0]]), torch.empty(1, 0, dtype=torch.long))
    expected = [[0.25, 0.75, 0, 0], [0, 0.75, 0.25, 0], [0, 0.25, 0.75, 0], [0, 0, 0.75, 0.25]]
    assert_close(matrix, torch.tensor([expected]))


def test_shrinking_matrix_by_hand():
    # The centre is at 2 of 5 pixels: they take the input at -2, 0, 2, 4 and 6; two lie outside.
    matrix = _strip_scaling(5, torch.tensor([[0.5]]), torch.empty(1, 0, dtype=torch.long))
    expected = torch.zeros(1, 5, 5)
    expected[0, 1, 0] = expected[0, 2, 2] = expected[0, 3, 4] = 1
    assert_close(matrix, expected)


def test_matrix_of_two_strips_by_hand():
    # Pixels 0 and 1 magnified about 0.5; pixels 2 to 4 shrunk about 3. Pixel 2 would take the
    # input at 1, which belongs to the other strip.
    matrix = _strip_scaling(5, torch.tensor([[2.0, 0.5]]), torch.tensor([[2]]))
    expected = torch.zeros(1, 5, 5)
    expected[0, :2, :2] = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    expected[0, 3, 3] = 1
    assert_close(matrix, expected)


def test_perturbation_of_a_full_mask_by_hand():
    # Scaled by 0.75, a line of four ones becomes .5 1 1 .5, and again 1/4 11/12 11/12 1/4. The
    # corners, 1/16, and the sides, 11/48, are then below 100/255.
    mask = published(torch.ones(1, 1, 4, 4), num_strips=1, scales=(0.75, 0.75), noise=0)
    expected = torch.zeros(1, 1, 4, 4)
    expected[..., 1:3, 1:3] = (11 / 12) ** 2
    assert_close(mask, expected)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (8, 8), (12, 20), (1, 1), (2, 5)])
def test_identity_without_scaling_threshold_and_noise(height, width):
    mask = torch.rand(2, 1, height, width)
    assert_close(published(mask, scales=(1, 1), threshold=0, noise=0), mask, atol=1e-6, rtol=0)


def test_a_magnified_strip_is_cropped_at_its_cuts():
    """Its content does not reach the other strips, which do not change."""
    mask = torch.zeros(1, 1, 10, 12)
    mask[..., 4:8] = 1  # the second of three vertical strips, full
    mask[..., 10] = 0.7  # part of the third
    columns = _AxisDraws(
        torch.tensor([[4, 8]]), torch.tensor([[1.25, 1.25, 1.0]]), torch.ones(1, 1)
    )
    rows = _AxisDraws(torch.tensor([[3, 5]]), torch.ones(1, 3), torch.ones(1, 1))
    assert_close(_apply(mask, _Perturbation(columns, rows, torch.zeros_like(mask)), 0), mask)


def test_strips_of_rows_are_scaled_vertically():
    mask = torch.zeros(1, 1, 10, 6)
    mask[..., 2:7, :] = 1
    still = _AxisDraws(torch.tensor([[2, 4]]), torch.ones(1, 3), torch.ones(1, 1))
    # The strip of the rows 2 to 6, centre 4: rows 2, 3, 5 and 6 take the input at 0, 2, 6 and 8.
    rows = _AxisDraws(torch.tensor([[2, 7]]), torch.tensor([[1.0, 0.5, 1.0]]), torch.ones(1, 1))
    perturbed = _apply(mask, _Perturbation(still, rows, torch.zeros_like(mask)), 0)
    assert perturbed[0, 0].sum(dim=1).tolist() == [0, 0, 0, 6, 6, 6, 0, 0, 0, 0]


def test_threshold_includes_its_level():
    levels = torch.tensor([0.0, 99, 100, 101, 255]).expand(1, 1, 2, 5) / 255
    kept = published(levels, scales=(1, 1), noise=0)[0, 0, 0] * 255
    assert_close(kept, torch.tensor([0.0, 0, 0, 101, 255]))


def test_draws_cover_their_ranges():
    draws = drawn(torch.zeros(400, 1, 64, 32))
    for axis, first, last in ((draws.columns, 8, 22), (draws.rows, 15, 45)):
        assert axis.cuts.shape == (400, 5)
        assert (axis.cuts.diff(dim=1) > 0).all()
        assert axis.cuts.min().item() == first
        assert axis.cuts.max().item() == last
        # Each pixel of the range is a cut about equally often.
        counts = axis.cuts.flatten().bincount()[first:]
        expected = axis.cuts.numel() / (last - first + 1)
        assert 0.5 * expected < counts.min().item() < counts.max().item() < 1.5 * expected
        for scales in (axis.strip_scales, axis.scale):
            assert 0.75 <= scales.min().item() < 0.76
            assert 1.24 < scales.max().item() < 1.25
            assert scales.mean().item() == pytest.approx(1, abs=0.03)
        assert axis.strip_scales.shape == (400, 6)
        assert not (axis.strip_scales == axis.scale).any()  # the whole mask has a scale of its own
    assert not torch.equal(draws.columns.strip_scales, draws.rows.strip_scales)


def test_range_too_small_for_the_cuts_gives_fewer_strips():
    draws = drawn(torch.zeros(2, 1, 8, 1))
    assert draws.rows.cuts.tolist() == [[2, 3, 4, 5]] * 2
    assert draws.columns.cuts.shape == (2, 0)


def test_noise_is_poisson_with_either_sign():
    mask = torch.full((8, 1, 64, 64), 0.5)  # so far inside that nothing is clipped
    levels = (published(mask, scales=(1, 1)) - mask) * 255
    assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    size = levels.abs()
    assert size.mean().item() == pytest.approx(20, abs=0.15)
    assert size.var().item() == pytest.approx(20, abs=0.8)
    assert (levels < 0).double().mean().item() == pytest.approx(0.5, abs=0.015)
    # The noise of pixels is independent: the product of neighbours' signs has mean zero.
    signs = levels.sign()
    assert abs((signs[..., 1:] * signs[..., :-1]).mean().item()) < 0.03


def test_noise_reaches_empty_pixels_and_stays_in_range():
    mask = torch.zeros(2, 1, 32, 32)
    mask[1] = 1
    empty, full = published(mask, scales=(1, 1))
    assert empty.min() == 0
    assert full.max() == 1
    # Subtractions from 0 and additions to 1 are clipped: half of the pixels.
    assert (empty == 0).double().mean().item() == pytest.approx(0.5, abs=0.06)
    assert (full == 1).double().mean().item() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (8, 8), (48, 20)])
def test_shape_range_and_dtype(height, width):
    mask = torch.rand(4, 1, height, width)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for perturbed in (
            published(mask.to(dtype)),
            shrink(mask.to(dtype), threshold=100, scale=0.75),
        ):
            assert perturbed.shape == mask.shape
            assert perturbed.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert perturbed.min() >= 0
            assert perturbed.max() <= 1


def test_each_sample_has_its_own_random_numbers():
    """The same mask is perturbed differently in each sample, whatever the other samples are."""
    mask = torch.zeros(3, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    perturbed = published(mask, noise=0)
    assert not torch.equal(perturbed[0], perturbed[1])
    assert not torch.equal(perturbed[1], perturbed[2])
    mask[1] = 0
    assert torch.equal(published(mask, noise=0)[::2], perturbed[::2])


def test_perturbation_follows_from_the_generator():
    mask = torch.rand(2, 1, 16, 16)
    torch.manual_seed(1)
    first = published(mask, seed=3)
    torch.manual_seed(2)  # the global state plays no part
    assert torch.equal(published(mask, seed=3), first)
    assert not torch.equal(published(mask, seed=4), first)
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(perturb(mask, **PUBLISHED, random=BatchRandom(generator)), first)
    assert not torch.equal(perturb(mask, **PUBLISHED, random=BatchRandom(generator)), first)


def test_input_stays_and_no_gradient_passes():
    mask = torch.rand(2, 1, 16, 16, requires_grad=True)
    before = mask.detach().clone()
    assert not published(mask).requires_grad
    assert not shrink(mask, threshold=100, scale=0.75).requires_grad
    assert torch.equal(mask, before)


def test_stays_float32_under_autocast():
    mask = torch.rand(2, 1, 16, 16)
    plain = published(mask), shrink(mask, threshold=100, scale=0.75)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = published(mask), shrink(mask, threshold=100, scale=0.75)
    assert torch.equal(plain[0], inside[0])
    assert torch.equal(plain[1], inside[1])


def test_shrink_halves_a_block_about_the_centre():
    mask = torch.zeros(2, 1, 8, 12)
    mask[..., 2:6, 2:10] = torch.tensor([0.8, 0.3]).view(2, 1, 1, 1)
    expected = torch.zeros(2, 1, 8, 12)
    expected[0, :, 3:5, 4:8] = 0.8  # the second sample is below the threshold
    assert_close(shrink(mask, threshold=100, scale=0.5), expected)


def test_shrink_applies_the_threshold_first():
    # Scaled by 0.75, a line of four ones becomes .5 1 1 .5: the soft corners, 1/4, stay.
    line = torch.tensor([0.5, 1, 1, 0.5])
    shrunk = shrink(torch.ones(1, 1, 4, 4), threshold=100, scale=0.75)
    assert_close(shrunk[0, 0], torch.outer(line, line))
    assert shrink(torch.full((1, 1, 4, 4), 100 / 255), threshold=100, scale=1).sum() == 0


def test_shrink_by_one_is_the_threshold_alone():
    mask = torch.rand(2, 1, 9, 6)
    kept = torch.where(mask > 100 / 255, mask, 0)
    assert_close(shrink(mask, threshold=100, scale=1), kept)
