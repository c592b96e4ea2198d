"""datasets/puppets/visibility.py: hidden pixels of painted parts by hand, and of whole puppets."""

import numpy as np
import pytest

from datasets.puppets.canvas import Place
from datasets.puppets.clips import Puppets
from datasets.puppets.identity import Fabric
from datasets.puppets.shapes import Trapezoid
from datasets.puppets.visibility import SurfaceCanvas, not_shown

PLAIN = Fabric((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "plain", 1.0)


def two_parts(first, second, *, second_visible=True):
    """A canvas of 16 x 32 with two squares of 8 x 8 pixels in rows 4 to 11, the second in front;
    they begin at the columns `first` and `second`.
    """
    canvas = SurfaceCanvas((16, 32))
    for column in (first, second) if second_visible else (first,):
        place = Place(column + 4.0, 8.0, 1.0, 0.0, 8.0)
        canvas.paint(place, Trapezoid(0.5, 0.5, 0.5, 0.0), PLAIN)
    return canvas


def columns(hidden):
    """Columns of the hidden pixels of rows 4 to 11, which must all be equal; nothing else is."""
    assert (hidden[4:12] == hidden[4]).all()
    assert not hidden[:4].any()
    assert not hidden[12:].any()
    return [*np.flatnonzero(hidden[4])]


def test_parts_and_points_by_hand():
    canvas = two_parts(2, 6)
    assert canvas.part[4].tolist() == [-1] * 2 + [0] * 4 + [1] * 8 + [-1] * 18
    assert canvas.part[3].max() == -1
    across = canvas.point[4, 6:14, 0]
    assert across == pytest.approx(np.arange(8) - 3.5)  # from the middle of the square


def test_what_was_behind_is_hidden():
    """The square in front moves 4 columns to the right, and shows 4 columns of the other one. Of
    these the first counts as seen: its neighbour was, less than 1.5 pixels away.
    """
    assert columns(not_shown(two_parts(2, 6), two_parts(2, 10))) == [7, 8, 9]


def test_background_behind_the_figure_is_hidden():
    assert columns(not_shown(two_parts(2, 2), two_parts(20, 20))) == [*range(2, 10)]


def test_a_part_that_moves_is_not_hidden():
    moved = not_shown(two_parts(2, 14), two_parts(6, 18))
    assert columns(moved) == [2, 3, 4, 5, 14, 15, 16, 17]  # background alone


def test_a_part_from_outside_of_the_frame_is_hidden():
    """2 of its 8 columns were inside; where these were, background comes to light."""
    hidden = not_shown(two_parts(2, 30), two_parts(2, 22))
    assert columns(hidden) == [25, 26, 27, 28, 29, 30, 31]


def test_a_part_that_was_not_there_is_hidden():
    before = two_parts(2, 0, second_visible=False)
    assert columns(not_shown(before, two_parts(2, 20))) == [*range(20, 28)]


def test_puppets():
    """A frame hides nothing from itself; uncovered background is what the masks say."""
    clips = Puppets("test", 6, 24, (64, 64), 0, motion_scale=1.5)
    frames = [0, 8, 16, 23]
    parts_of_figures = 0
    for index in range(6):
        hidden = clips.hidden_pixels(index, 0, frames)
        assert hidden.shape == (4, 64, 64)
        assert not hidden[0].any()
        inside = clips.foreground_masks(index, frames) > 0.5
        uncovered = inside[:1] & ~inside
        # Marks of the coverage are soft where parts meet, so a few pixels at edges differ.
        assert (hidden & ~inside ^ uncovered).mean() < 0.003
        parts_of_figures += (hidden & inside).sum()
    assert 100 < parts_of_figures < 0.1 * 24 * 64 * 64
