"""Tests of drawn pictures: discs at the right pixels, colours, the layout of the grid."""

import numpy as np
import torch
from torch.testing import assert_close

from media.visualization import (
    colorize_weights,
    draw_keypoints,
    grey_to_rgb,
    palette,
    titled_grid,
    to_uint8,
)


def test_keypoint_is_drawn_at_its_pixel():
    frames = torch.full((1, 3, 33, 65), 0.5)
    points = torch.tensor([[[0.5, -0.25], [-1.0, 1.0]]])  # at columns 48 and 0, rows 12 and 32
    drawn = draw_keypoints(frames, points, radius=0.1)
    colors = palette(2, frames)
    assert_close(drawn[0, :, 12, 48], colors[0])
    assert_close(drawn[0, :, 32, 0], colors[1])
    changed = (drawn[0] != 0.5).any(0)
    rows, columns = changed[:, 32:].nonzero().unbind(1)
    # The disc is round, although the frame is wide.
    assert (rows.min() + rows.max()) / 2 == 12
    assert (columns.min() + columns.max()) / 2 + 32 == 48
    assert rows.max() - rows.min() == columns.max() - columns.min()
    assert (drawn[0, :, 12, columns.min() + 32] == 0).all()  # its dark rim


def test_weights_have_the_colours_of_their_keypoints():
    weights = torch.zeros(1, 3, 2, 2)
    weights[0, 0, 0, 0] = weights[0, 1, 0, 1] = weights[0, 2, 1, 0] = 1
    picture = colorize_weights(weights, (2, 2))[0]
    colors = palette(2, weights)
    assert_close(picture[:, 0, 0], torch.zeros(3))
    assert_close(picture[:, 0, 1], colors[0])
    assert_close(picture[:, 1, 0], colors[1])


def test_maps_are_resized_to_the_picture():
    assert_close(
        grey_to_rgb(torch.full((2, 1, 4, 4), 0.25), (8, 12)), torch.full((2, 3, 8, 12), 0.25)
    )


def test_pixels_are_rounded_and_clamped():
    image = torch.tensor([-0.1, 0.5, 1.1]).view(3, 1, 1)
    assert to_uint8(image).tolist() == [[[0, 128, 255]]]


def test_grid_has_a_column_per_entry_and_a_row_per_sample():
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(2, 3, 48, 64).clone()
    blue = red.flip(1)
    blue[1] = 0
    grid = titled_grid({"left": red, "right": blue})
    zoom = 2  # a side of 48 is enlarged to 96
    title = grid.shape[0] - 2 * 48 * zoom
    assert 10 <= title <= 20
    assert grid.shape[1:] == (2 * 64 * zoom, 3)
    assert grid.dtype == np.uint8
    body = grid[title:]
    assert (body[:, : 64 * zoom] == (255, 0, 0)).all()
    assert (body[: 48 * zoom, 64 * zoom :] == (0, 0, 255)).all()
    assert (body[48 * zoom :, 64 * zoom :] == 0).all()
    for start in (0, 64 * zoom):  # each column has a title
        assert (grid[:title, start : start + 64 * zoom] < 128).any()


def test_large_frames_keep_their_size():
    grid = titled_grid({"a": torch.zeros(1, 3, 100, 120)})
    assert grid.shape[1] == 120
