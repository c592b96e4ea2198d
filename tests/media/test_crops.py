import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from common.errors import UserError
from media.crops import (
    Box,
    Paster,
    as_text,
    centre_box,
    cut_out,
    parse_box,
    require_overlap,
    with_aspect,
)
from media.images import fit_frames


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def ramp(height, width, step_x, step_y):
    """Make a picture with step_x * x + step_y * y at (x, y), exact under any symmetric filter."""
    y, x = np.mgrid[:height, :width]
    return np.repeat((step_x * x + step_y * y)[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("40,0,256,256", Box(40, 0, 256, 256)),
        (" -3.5, 2 ,10,20.25", Box(-3.5, 2, 10, 20.25)),
        ("1e3,0,1,1", Box(1000, 0, 1, 1)),
    ],
)
def test_parse_box(text, box):
    assert parse_box(text, "--crop") == box


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1;2;3;4", "1,2,nan,4", "1,2,inf,4", "aut0"]
)
def test_a_text_that_is_no_box_is_one_line(text):
    with pytest.raises(UserError) as caught:
        parse_box(text, "--crop-source")
    assert str(caught.value).startswith(f"--crop-source {text}: not four numbers; write left,top,")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1,2,0,4", "1,2,3,0", "1,2,-3,4", "9,9,-3,-3"])
def test_a_box_without_area(text):
    with pytest.raises(UserError, match=f"--crop {text}: no area; give a width and a height"):
        parse_box(text, "--crop")


@pytest.mark.parametrize(
    "box", [Box(64, 0, 9, 9), Box(0, 48, 9, 9), Box(-9, 0, 9, 9), Box(0, -9.5, 9, 9)]
)
def test_a_box_outside_of_the_picture(box):
    message = f"--crop {as_text(box)}: outside of the picture, which has 64 x 48 pixels"
    with pytest.raises(UserError, match=message):
        require_overlap(box, (48, 64), "--crop")


@pytest.mark.parametrize("box", [Box(63, 47, 9, 9), Box(-8, -8, 9, 9), Box(-99, -99, 999, 999)])
def test_a_box_that_sticks_out_is_fine(box):
    require_overlap(box, (48, 64), "--crop")


def test_as_text_is_read_again():
    assert as_text(Box(-3.25, 10, 720.04, 1280)) == "-3.2,10,720,1280"
    assert parse_box(as_text(Box(0.5, 10, 720, 1280)), "--crop") == Box(0.5, 10, 720, 1280)


def test_with_aspect_widens_the_shorter_side_around_the_middle():
    assert with_aspect(Box(10, 20, 30, 60), (64, 64)) == Box(-5, 20, 60, 60)
    assert with_aspect(Box(10, 20, 60, 30), (64, 64)) == Box(10, 5, 60, 60)
    assert with_aspect(Box(0, 0, 30, 30), (32, 48)) == Box(-7.5, 0, 45, 30)


@pytest.mark.parametrize(
    ("image_size", "size", "box"),
    [
        ((1280, 720), (256, 256), Box(0, 280, 720, 720)),
        ((412, 411), (411, 411), Box(0, 0, 411, 411)),
        ((100, 301), (50, 100), Box(50, 0, 200, 100)),
    ],
)
def test_centre_box(image_size, size, box):
    assert centre_box(image_size, size) == box


@pytest.mark.parametrize("image_size", [(37, 53), (53, 37), (64, 65), (41, 41), (7, 300)])
@pytest.mark.parametrize("size", [(16, 16), (31, 17), (64, 64), (20, 50)])
def test_the_centre_cut_out_is_the_crop_of_fit_frames(image_size, size):
    frame = noise(*image_size)
    cut = cut_out(frame, centre_box(image_size, size), size)
    assert_array_equal(cut, fit_frames(frame[None], size, "crop")[0])


def test_cutting_without_scaling_copies_pixels():
    frame = noise(30, 40)
    assert_array_equal(cut_out(frame, Box(7, 3, 20, 10), (10, 20)), frame[3:13, 7:27])


def test_cutting_between_pixels():
    """The centre of the result's column 0 is at 10.75 + 0.5, between pixels 10 and 11."""
    cut = cut_out(ramp(30, 40, 4, 0), Box(10.75, 5, 20, 20), (20, 20))
    assert_array_equal(cut[:, :, 0], np.broadcast_to(43 + 4 * np.arange(20), (20, 20)))


def test_cutting_scales_down_without_aliasing():
    checkerboard = np.repeat((np.indices((64, 64)).sum(0) % 2 * 255)[..., None], 3, 2)
    cut = cut_out(checkerboard.astype(np.uint8), Box(8, 8, 48, 48), (12, 12))
    assert abs(cut.astype(int) - 127).max() < 16


@pytest.mark.parametrize(
    ("left", "top"), [(-6, -4), (26, 20), (-6, 20), (-5.5, 3), (3, 21.25), (-19, 29)]
)
def test_outside_of_the_picture_its_edge_is_repeated(left, top):
    frame = noise(30, 40)
    cut = cut_out(frame, Box(left, top, 20, 20), (20, 20))
    rows, columns = (
        np.clip(np.arange(20), np.ceil(max(0, -start)), np.floor(min(side - start, 20)) - 1)
        for start, side in ((top, 30), (left, 40))
    )
    inside = cut[rows.astype(int)][:, columns.astype(int)]
    assert_array_equal(cut, inside)
    if left == int(left) and top == int(top):
        y, x = (
            np.clip(np.arange(20) + start, 0, side - 1) for start, side in ((top, 30), (left, 40))
        )
        assert_array_equal(cut, frame[y][:, x])


def test_a_large_box_takes_no_more_memory_than_its_result():
    """The box is a hundred thousand pixels wide; a picture of that size would take 30 GB."""
    frame = np.full((400, 400, 3), 7, np.uint8)
    assert (cut_out(frame, Box(-2e4, -2e4, 1e5, 1e5), (512, 512)) == 7).all()


def test_a_box_with_almost_nothing_of_the_picture_is_one_line():
    with pytest.raises(UserError, match=r"the crop -50000,0,100000,100000 holds next to nothing"):
        cut_out(noise(10, 10), Box(-50000, 0, 1e5, 1e5), (64, 64))


def test_nothing_is_squashed():
    with pytest.raises(ValueError, match="20 x 21 pixels would be squashed to 64 x 64: use with_"):
        cut_out(noise(40, 40), Box(0, 0, 20, 21), (64, 64))
    with pytest.raises(ValueError, match="20 x 21 pixels would be squashed to 64 x 64"):
        Paster(noise(40, 40), Box(0, 0, 20, 21)).paste(noise(64, 64))


WHITE, BLACK = np.full((200, 300, 3), 255, np.uint8), np.zeros((50, 50, 3), np.uint8)


def test_pixels_outside_of_the_box_stay_as_they_are():
    canvas = noise(60, 80)
    pasted = Paster(canvas, Box(20.3, 10.6, 30, 30), feather=0.1).paste(noise(16, 16, seed=1))
    outside = np.ones((60, 80), bool)
    outside[11:40, 21:50] = False  # 10, 20, 40 and 50 are covered in part
    assert_array_equal(pasted[outside], canvas[outside])
    assert (pasted[14:37, 24:47] != canvas[14:37, 24:47]).any(axis=-1).mean() > 0.99


def test_without_a_feather_the_picture_is_all_there_is():
    picture = noise(30, 40)
    pasted = Paster(WHITE, Box(100, 20, 40, 30), feather=0).paste(picture)
    assert_array_equal(pasted[20:50, 100:140], picture)
    assert (pasted[:20] == 255).all()
    assert (pasted[20:50, 99] == 255).all()
    assert (pasted[20:50, 140] == 255).all()


def test_feather():
    """The fade is 10 pixels wide; at a part t of it the picture has the weight 3 t^2 - 2 t^3."""
    pasted = Paster(WHITE, Box(80, 50, 100, 100), feather=0.1).paste(BLACK)
    t = (np.arange(10) + 0.5) / 10
    expected = 255 * (1 - (3 * t**2 - 2 * t**3))
    across, down = pasted[100, 80:180], pasted[50:150, 130]
    for edge in (across[:10], across[-10:][::-1], down[:10], down[-10:][::-1]):
        assert_allclose(edge[:, 0], expected, atol=1)
    assert (pasted[60:140, 90:170] == 0).all()
    weight = 1 - expected[4] / 255  # both directions count in a corner
    assert_allclose(pasted[54, 84, 0], 255 * (1 - weight**2), atol=1)


@pytest.mark.parametrize(
    ("box", "sides"),
    [
        (Box(0, 50, 100, 100), "left"),
        (Box(-30, 50, 100, 100), "left"),
        (Box(200, 50, 100, 100), "right"),
        (Box(250, 50, 100, 100), "right"),
        (Box(100, 0, 100, 100), "top"),
        (Box(100, 100, 100, 100), "bottom"),
        (Box(-50, -100, 400, 400), "left top right bottom"),
    ],
)
def test_no_feather_where_the_box_ends_with_the_canvas(box, sides):
    pasted = Paster(WHITE, box, feather=0.1).paste(BLACK)[..., 0]
    rows = slice(max(0, int(box.top)), int(box.top + box.height))
    columns = slice(max(0, int(box.left)), int(box.left + box.width))
    part = pasted[rows, columns]
    middle_y, middle_x = (side // 2 for side in part.shape)
    edges = {
        "left": part[middle_y, 0],
        "right": part[middle_y, -1],
        "top": part[0, middle_x],
        "bottom": part[-1, middle_x],
    }
    for side, value in edges.items():
        assert (value == 0) == (side in sides.split())


@pytest.mark.parametrize(
    "box", [Box(20, 10, 64, 64), Box(13.37, 9.81, 41.5, 41.5), Box(-20.2, 31.4, 90, 90)]
)
def test_what_was_cut_out_goes_back_to_its_place(box):
    canvas = ramp(100, 120, 1.25, 0.75)
    pasted = Paster(canvas, box, feather=0).paste(cut_out(canvas, box, (64, 64)))
    inside = np.zeros((100, 120), bool)  # without the edges, where filters are cut off
    inside[
        max(0, int(box.top) + 3) : int(box.top + box.height) - 3,
        max(0, int(box.left) + 3) : int(box.left + box.width) - 3,
    ] = True
    inside[:3] = inside[-3:] = inside[:, :3] = inside[:, -3:] = False
    assert abs(pasted[inside].astype(int) - canvas[inside]).max() <= 1


def test_seams_are_feathered_by_default():
    row = Paster(WHITE, Box(80, 50, 100, 100)).paste(BLACK)[100, 78:90, 0].astype(int)
    assert row[:2].tolist() == [255, 255]
    assert row[-2:].tolist() == [0, 0]
    assert -np.diff(row).min() < 60


def test_pasting_again_starts_from_the_canvas():
    canvas = noise(60, 80)
    paster = Paster(canvas.copy(), Box(10, 10, 40, 40))
    first = paster.paste(noise(16, 16, seed=1))
    paster.paste(noise(16, 16, seed=2))
    assert_array_equal(paster.paste(noise(16, 16, seed=1)), first)


def test_a_box_that_holds_no_whole_pixel_changes_nothing():
    canvas = noise(60, 80)
    for box in (Box(10.2, 10.2, 0.5, 0.5), Box(90, 10, 20, 20)):
        assert_array_equal(Paster(canvas, box).paste(noise(16, 16, seed=1)), canvas)
