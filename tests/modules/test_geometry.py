"""The grid convention, warps, resizing, heatmaps and 2 x 2 inverses."""

import math

import pytest
import torch
from torch.testing import assert_close

from modules.geometry import (
    coordinate_grid,
    full_precision,
    gaussian_heatmaps,
    inverse_2x2,
    occlusion_from_field,
    resize,
    resize_grid,
    scaled_size,
    warp,
    warp_by_candidates,
)

SIZES = [(8, 8), (6, 10), (9, 5)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_corner_pixels_lie_at_exactly_one(height, width):
    grid = coordinate_grid(height, width, torch.empty(0))
    assert grid.shape == (height, width, 2)
    assert grid[0, 0].tolist() == [-1, -1]
    assert grid[0, -1].tolist() == [1, -1]  # top right: x comes first
    assert grid[-1, 0].tolist() == [-1, 1]
    assert grid[-1, -1].tolist() == [1, 1]


def test_single_row_lies_at_zero():
    assert coordinate_grid(1, 3, torch.empty(0)).tolist() == [[[-1, 0], [0, 0], [1, 0]]]


@pytest.mark.parametrize("padding_mode", ["zeros", "reflection"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_identity_warp_is_the_identity(height, width, padding_mode):
    image = torch.rand(2, 3, height, width)
    grid = coordinate_grid(height, width, image).expand(2, -1, -1, -1)
    assert_close(warp(image, grid, padding_mode), image, atol=1e-5, rtol=0)


def test_warp_keeps_memory_format_and_dtype():
    image = torch.rand(2, 3, 6, 10).to(memory_format=torch.channels_last)
    grid = coordinate_grid(6, 10, image).expand(2, -1, -1, -1)
    assert warp(image, grid).is_contiguous(memory_format=torch.channels_last)
    assert warp(image.contiguous(), grid).is_contiguous()
    assert warp(image.bfloat16(), grid).dtype == torch.bfloat16


def test_each_candidate_samples_its_own_sample():
    images = torch.rand(2, 3, 4, 5)
    motions = torch.rand(2, 3, 6, 7, 2) * 2 - 1
    warped = warp_by_candidates(images.bfloat16(), motions)
    assert (warped.shape, warped.dtype) == ((2, 3, 3, 6, 7), torch.float32)
    for sample in range(2):
        for candidate in range(3):
            image, grid = images[sample].bfloat16().float(), motions[sample, candidate]
            assert_close(warped[sample, candidate], warp(image[None], grid[None])[0])


def test_warp_samples_where_the_grid_points_and_pads_with_zeros():
    image = torch.arange(5.0).expand(1, 1, 5, 5)  # the value is the column
    shifted = coordinate_grid(5, 5, image) + torch.tensor([0.5, 0.0])  # one pixel to the right
    assert_close(warp(image, shifted[None])[0, 0, 2], torch.tensor([1.0, 2, 3, 4, 0]))
    assert_close(warp(image, shifted[None], "reflection")[0, 0, 2], torch.tensor([1.0, 2, 3, 4, 3]))


def test_resize_does_not_align_corners():
    row = torch.tensor([[[[0.0, 1.0]]]])
    # Pixel centres of the wide row lie at -0.25, 0.25, 0.75 and 1.25 of the narrow one.
    assert_close(resize(row, (1, 4)).flatten(), torch.tensor([0.0, 0.25, 0.75, 1.0]))
    assert resize(row, (1, 2)) is row


def test_resize_grid_interpolates_coordinates():
    grid = coordinate_grid(4, 6, torch.empty(0)).expand(2, -1, -1, -1)
    resized = resize_grid(grid, (8, 12))
    assert resized.shape == (2, 8, 12, 2)
    assert_close(resized[..., 0], resize(grid[..., 0].unsqueeze(1), (8, 12))[:, 0])


def test_scaled_size():
    assert scaled_size(torch.empty(1, 3, 64, 48), 0.25) == (16, 12)
    assert scaled_size(torch.empty(1, 3, 64, 48), 1) == (64, 48)


def test_gaussian_heatmaps_follow_the_formula():
    points = torch.tensor([[[0.3, -0.7], [-1.2, 0.1]]])
    heatmaps = gaussian_heatmaps(points, 5, 7, 0.04)
    assert heatmaps.shape == (1, 2, 5, 7)
    for k, (px, py) in enumerate(points[0].tolist()):
        for row in range(5):
            for column in range(7):
                x, y = -1 + 2 * column / 6, -1 + 2 * row / 4
                expected = math.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 0.04))
                assert heatmaps[0, k, row, column].item() == pytest.approx(expected, abs=1e-6)


def test_inverse_equals_linalg():
    matrices = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator())
    assert_close(inverse_2x2(matrices), torch.linalg.inv(matrices))


@pytest.mark.parametrize("sign", [1, -1])
def test_degenerate_inverse_is_finite_and_keeps_the_sign(sign):
    matrix = torch.tensor([[1.0, 0.0], [0.0, sign * 1e-10]], requires_grad=True)
    inverse = inverse_2x2(matrix)
    assert inverse[1, 1].item() == pytest.approx(sign * 1e8)
    inverse.sum().backward()
    assert torch.isfinite(matrix.grad).all()
    assert torch.isfinite(inverse_2x2(torch.zeros(2, 2))).all()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_full_precision_lifts_half_precision_only(dtype, expected):
    assert full_precision(torch.zeros(1, dtype=dtype)).dtype == expected


def field(height, width, x_scale, y_scale, shift=(0.0, 0.0)):
    grid = coordinate_grid(height, width, torch.empty(0))
    return (grid * torch.tensor([x_scale, y_scale]) + torch.tensor(shift)).unsqueeze(0)


@pytest.mark.parametrize(
    ("x_scale", "y_scale", "expected"),
    [
        (1.0, 1.0, 1.0),
        (0.5, 0.5, 0.25),  # twice as large: each source pixel covers four
        (0.5, 1.0, 0.5),
        (-1.0, 1.0, 1.0),  # mirrored, but all there
        (0.0, 1.0, 0.0),  # one column of the source, stretched over all
    ],
)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_occlusion_of_a_field_is_its_determinant(height, width, x_scale, y_scale, expected):
    occlusion = occlusion_from_field(field(height, width, x_scale, y_scale))
    assert_close(occlusion, torch.full((1, 1, height, width), expected), atol=1e-5, rtol=0)


def test_occlusion_of_a_field_at_a_right_angle():
    quarter_turn = field(6, 6, 0.5, 1.0).flip(-1)
    assert_close(occlusion_from_field(quarter_turn), torch.full((1, 1, 6, 6), 0.5))


def test_occlusion_of_a_field_that_leaves_the_frame():
    smaller = occlusion_from_field(field(5, 5, 2.0, 2.0))  # u is -2, -1, 0, 1 and 2
    expected = torch.zeros(5, 5)
    expected[1:4, 1:4] = 1  # a determinant of 4 is no more visible than visible
    assert torch.equal(smaller[0, 0], expected)
    shifted = occlusion_from_field(field(3, 5, 1.0, 1.0, shift=(0.75, 0.0)))
    # u_x is -.25, .25, .75, 1.25 and 1.75.
    assert_close(shifted[0, 0], torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]).expand(3, 5))
    rounded = occlusion_from_field(field(3, 5, 1.0 + 1e-6, 1.0))
    assert_close(rounded, torch.ones(1, 1, 3, 5))


def test_occlusion_of_a_fold():
    """u_x = |x|: both sides show the right half of the source; at the fold u stands still."""
    folded = field(3, 5, 1.0, 1.0)
    folded[..., 0].abs_()
    assert_close(occlusion_from_field(folded)[0, 0], torch.tensor([1.0, 1, 0, 1, 1]).expand(3, 5))


def test_occlusion_of_each_field_by_itself():
    fields = torch.cat((field(4, 6, 1.0, 1.0), field(4, 6, 0.5, 0.5))).bfloat16()
    occlusion = occlusion_from_field(fields)
    assert occlusion.dtype == torch.float32
    assert_close(occlusion[:, 0, 1, 1], torch.tensor([1.0, 0.25]), atol=0.02, rtol=0)
