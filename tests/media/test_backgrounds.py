import tracemalloc
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from media.backgrounds import BackgroundFrames, open_background, parse_color, solid_frame
from media.frame_folder import write_frame_rate
from media.timing import Clock
from media.video import open_clip
from tests.helpers.media import (
    damage,
    frame_number,
    numbered_frame,
    truncate,
    write_clip,
    write_frame_folder,
)

SIZE = (48, 64)
NTSC = Fraction(30000, 1001)


def open_at(path, rate=Fraction(25), end="loop", fit="crop", size=SIZE):
    return open_background(str(path), size, fit, Clock(Fraction(rate)), end)


def numbers(background, limit):
    return [frame_number(frame) for frame in islice(background, limit)]


def counted(num_frames, rate, frame_rate, end):
    """Make a background whose frame i is filled with i."""
    frames = [np.full((2, 2, 3), number, np.uint8) for number in range(num_frames)]
    clock, driving_clock = Clock(Fraction(rate)), Clock(Fraction(frame_rate))
    return BackgroundFrames(frames, clock, (2, 2), "crop", driving_clock, end)


def values(background, limit):
    return [int(frame[0, 0, 0]) for frame in islice(background, limit)]


@pytest.mark.parametrize(
    ("rate", "frame_rate", "shown"),
    [
        (25, 25, [0, 1, 2, 3, 4, 5]),
        (50, 25, [0, 2, 4, 6, 8, 10]),
        (10, 25, [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4]),  # the one on screen, not the nearest
        (24, 30, [0, 0, 1, 2, 3, 4, 4, 5]),
        (Fraction(5, 2), 1, [0, 2, 5, 7, 10]),
        (1, 3, [0, 0, 0, 1, 1, 1, 2]),  # exact thirds of a frame
    ],
)
def test_frames_are_matched_by_time(rate, frame_rate, shown):
    assert values(counted(20, rate, frame_rate, "hold"), len(shown)) == shown


def test_long_clips_do_not_drift():
    shown = values(counted(200, NTSC, 30, "loop"), 4001)
    # A background frame lasts 1.001 driving frames: one more is lost every 1001, first at once.
    late = [(i - number) % 200 for i, number in enumerate(shown)]
    assert late == [0, *[1] * 1001, *[2] * 1001, *[3] * 1001, *[4] * 997]


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        ("loop", [0, 2, 4, 1, 3, 0, 2, 4, 1]),  # 5 frames last 2.5 driving frames
        ("hold", [0, 2, 4, 4, 4, 4, 4, 4, 4]),
        ("stop", [0, 2, 4]),
    ],
)
def test_end_of_a_clip(end, shown):
    assert values(counted(5, 50, 25, end), 9) == shown


@pytest.mark.parametrize("rate", [1000, Fraction(90000, 7)])
def test_a_clip_much_shorter_than_a_driving_frame(rate):
    """The clip is not read a thousand times for each driving frame."""

    class Watched:
        num_passes = 0

        def __iter__(self):
            self.num_passes += 1
            return iter([np.full((2, 2, 3), number, np.uint8) for number in range(3)])

    frames, clock = Watched(), Clock(Fraction(rate))
    background = BackgroundFrames(frames, clock, (2, 2), "crop", Clock(Fraction(7)), "loop")
    expected = [int(Fraction(step, 7) * rate) % 3 for step in range(50)]
    assert values(background, 50) == expected
    assert frames.num_passes < 60


def test_hold_keeps_the_last_frame_even_if_its_time_fell_between():
    assert values(counted(6, 50, 25, "hold"), 5) == [0, 2, 4, 5, 5]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "folder"])
def test_kinds_of_clips(tmp_path, name):
    write = write_frame_folder if name == "folder" else write_clip
    path = write(tmp_path / name, 6)
    assert not open_at(path).is_still
    assert numbers(open_at(path), 14) == [*range(6), *range(6), 0, 1]
    assert numbers(open_at(path, end="hold"), 8) == [*range(6), 5, 5]
    assert numbers(open_at(path, end="stop"), 14) == [*range(6)]


def test_a_clip_keeps_its_own_rate(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 12, rate=Fraction(50))
    assert numbers(open_at(path, 25), 8) == [0, 2, 4, 6, 8, 10, 0, 2]


def test_it_can_be_iterated_again(tmp_path):
    background = open_at(write_clip(tmp_path / "a.mp4", 6))
    assert numbers(background, 4) == numbers(background, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["damaged.mp4", "cut_off.mkv"])
def test_a_damaged_clip_ends_at_its_last_good_frame(tmp_path, kind):
    path = write_clip(tmp_path / kind, 40, gop=12, codec_options={"bf": "0"})
    path = damage(path, 30, 39) if kind == "damaged.mp4" else truncate(path, 0.6)
    count = sum(1 for _ in open_clip(path))
    assert 1 < count < 40
    good = list(range(count))
    assert numbers(open_at(path), 2 * count + 1) == [*good, *good, 0]
    assert numbers(open_at(path, end="hold"), count + 2) == [*good, count - 1, count - 1]
    assert numbers(open_at(path, end="stop"), 80) == good


@pytest.mark.parametrize("end", ["loop", "hold", "stop"])
def test_a_clip_without_readable_frames_is_an_error(tmp_path, end):
    path = damage(write_clip(tmp_path / "a.mp4", 6, codec_options={"bf": "0"}), 0, 5)
    with pytest.raises(
        UserError, match=r"--background .*a\.mp4: none of its frames can be decoded"
    ):
        open_at(path, end=end)
    with pytest.raises(ValueError, match="at least one frame"):
        counted(0, 25, 25, end)


def test_a_damaged_file_in_a_folder_is_named(tmp_path):
    folder = write_frame_folder(tmp_path / "folder", 6)
    truncate(folder / "frame3.png", 0.5)
    shown = iter(open_at(folder))
    assert [frame_number(next(shown)) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"--background .*frame3\.png: not an image that can"):
        next(shown)


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.webp", "a.gif", "a.mp4", "noname"])
def test_an_image_of_any_name_stands_still(tmp_path, name):
    form = {"a.JPG": "JPEG", "a.webp": "WEBP", "a.gif": "GIF"}.get(name, "PNG")
    Image.fromarray(numbered_frame(5)).save(tmp_path / name, format=form)
    for end in ("loop", "hold", "stop"):
        background = open_at(tmp_path / name, end=end)
        assert background.is_still
        shown = list(islice(background, 5))
        assert [frame_number(frame) for frame in shown] == [5] * 5
        assert all(frame is shown[0] for frame in shown)


def test_a_png_twice_as_wide_as_high_is_a_picture(tmp_path):
    Image.fromarray(numbered_frame(9, (32, 64))).save(tmp_path / "wide.png")
    background = open_at(tmp_path / "wide.png", size=(32, 64), end="stop")
    assert numbers(background, 3) == [9, 9, 9]


def test_a_picture_with_an_embedded_preview_is_a_picture(tmp_path):
    image = Image.fromarray(numbered_frame(7))
    preview = Image.fromarray(numbered_frame(8))
    image.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[preview])
    assert numbers(open_at(tmp_path / "phone.jpg"), 3) == [7, 7, 7]


def test_a_video_named_gif_is_a_video(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 6).rename(tmp_path / "a.gif")
    assert numbers(open_at(path), 8) == [0, 1, 2, 3, 4, 5, 0, 1]


@pytest.mark.parametrize(("name", "form"), [("a.webp", "WEBP"), ("a.png", "PNG"), ("a.jpg", "GIF")])
def test_an_animation_that_cannot_be_read_is_refused(tmp_path, name, form):
    first, *others = [Image.fromarray(numbered_frame(number)) for number in (1, 2, 3)]
    first.save(tmp_path / name, format=form, save_all=True, append_images=others)
    with pytest.raises(UserError, match=rf"{name}: an animation \({form}\); animations are"):
        open_at(tmp_path / name)


@pytest.mark.parametrize("kind", ["image", "clip"])
def test_frames_are_fitted(tmp_path, kind):
    """The frame is wide: red at the left and right, with a white square in the middle."""
    wide = np.full((32, 64, 3), 255, np.uint8)
    wide[:, :16] = wide[:, 48:] = (255, 0, 0)
    path = tmp_path / "wide.png"
    if kind == "clip":
        path = tmp_path / "clip" / "0.png"
        path.parent.mkdir()
    Image.fromarray(wide).save(path)
    path = path if kind == "image" else path.parent

    crop = open_at(path, size=(16, 16), fit="crop")
    pad = open_at(path, size=(16, 16), fit="pad")
    assert crop.original_size == pad.original_size == (32, 64)
    cropped, padded = next(iter(crop)), next(iter(pad))
    assert cropped.shape == padded.shape == (16, 16, 3)
    assert cropped.dtype == np.uint8
    assert (cropped >= 240).all()
    assert (padded[:4] == 0).all()
    assert (padded[-4:] == 0).all()
    np.testing.assert_allclose(padded[8, [1, 8]], [[255, 0, 0], [255, 255, 255]], atol=2)


def test_memory_does_not_grow_with_length(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 60, size=(240, 320), gop=12)
    num_bytes = 240 * 320 * 3
    background = iter(open_at(path, size=(240, 320)))
    next(background)
    tracemalloc.start()
    for _ in islice(background, 130):  # passes its end twice
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * num_bytes


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("#00ff00", (0, 255, 0)),
        ("#0f0", (0, 255, 0)),
        ("#1A2b3C", (26, 43, 60)),
        ("#18f", (17, 136, 255)),
        ("lime", (0, 255, 0)),
        ("DarkSlateGray", (47, 79, 79)),
        ("green.png", None),
        ("./green", None),
        ("00ff00", None),
        ("", None),
    ],
)
def test_parse_color(text, color):
    assert parse_color(text) == color


@pytest.mark.parametrize(
    "text",
    ["#", "#00ff0", "#00ff00ff", "#xyz", "#0f0 ", "#0f0\n", "#green.png", "#\u0660\u0660\u0660"],
)
def test_a_bad_color_is_an_error(text):
    with pytest.raises(UserError, match=r"not a colour; write #00ff00 or #0f0, or \./#"):
        parse_color(text)


def test_a_colour_as_background():
    expected = np.zeros((4, 6, 3), np.uint8)
    expected[..., 1] = 255
    np.testing.assert_array_equal(solid_frame((0, 255, 0), (4, 6)), expected)
    background = open_at("#0f0", size=(4, 6), end="stop")
    assert background.is_still
    shown = list(islice(background, 3))
    np.testing.assert_array_equal(np.stack(shown), np.stack([expected] * 3))


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("missing.png", None, "no such file"),
        ("missing.mp4", None, "no such file"),
        ("missing", None, "no such file"),
        ("empty.jpg", b"", "the file is empty"),
        ("empty.mp4", b"", "not a video: the file is empty"),
        ("notes.txt", b"hello", "the file holds text"),
        ("text.gif", b"hello", "the file holds text"),
        ("pointer.mp4", b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
        ("noise.png", bytes(range(200, 250)), "its format is unknown"),
        ("folder", ..., "no frames"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, name, contents, message):
    path = tmp_path / name
    if contents is ...:
        path.mkdir()
    elif contents is not None:
        path.write_bytes(contents)
    with pytest.raises(UserError) as caught:
        open_at(path)
    text = str(caught.value)
    assert text.startswith(f"--background {path}: ")
    assert message in text
    assert "give an image, a video (.mp4" in text
    assert "\n" not in text


def timed(milliseconds):
    return Clock(Fraction(25), [Fraction(number, 1000) for number in milliseconds])


def clocked(clock, driving_clock, end):
    frames = [np.full((2, 2, 3), number, np.uint8) for number in range(3)]
    return BackgroundFrames(frames, clock, (2, 2), "crop", driving_clock, end)


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        ("loop", [0, 0, 1, 2, 2, 0, 0, 1, 2, 2]),  # repeated from 500 ms on
        ("hold", [0, 0, 1, 2, 2, 2, 2, 2, 2, 2]),
        ("stop", [0, 0, 1, 2, 2]),
    ],
)
def test_a_background_with_times_of_its_own(end, shown):
    """Frames begin at 0, 150 and 260 ms and end at 500; the driving ones come every 100 ms."""
    background = clocked(timed([0, 150, 260, 500]), Clock(Fraction(10)), end)
    assert values(background, 10) == shown


def test_a_background_behind_driving_frames_with_times_of_their_own():
    """Driving frames at 0, 90, 100 and 290 ms, then 25 a second; the background has 10 a second."""
    driving = timed([0, 90, 100, 290, 1000])
    assert values(clocked(Clock(Fraction(10)), driving, "stop"), 9) == [0, 0, 1, 2]


def test_a_clip_with_pauses_as_background(tmp_path):
    path = write_clip(tmp_path / "a.mp4", times=[0, 1, 10, 11], codec_options={"bf": "0"})
    assert numbers(open_at(path, end="hold"), 12) == [0, *[1] * 9, 2, 3]


def test_clips_of_very_many_frames_a_second_are_not_looped(tmp_path):
    """2,000 such frames, a file of 34 KB, would take a minute for each driving frame."""
    for rate in (90_000, 960):
        write_frame_folder(tmp_path / f"{rate}", 5)
        write_frame_rate(tmp_path / f"{rate}", Fraction(rate))
    fast = tmp_path / "90000"
    message = r"--background .*: 90,000 frames a second, and at most 1,000 are"
    with pytest.raises(UserError, match=message):
        open_at(fast)
    assert len(list(open_at(fast, end="stop"))) == 1
    assert numbers(open_at(fast, end="hold"), 3) == [0, 4, 4]
    assert len(numbers(open_at(tmp_path / "960"), 3)) == 3
