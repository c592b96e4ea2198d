from fractions import Fraction

import numpy as np
import pytest

from common.errors import UserError
from media.excerpt import Excerpt, parse_time
from media.video import VideoError, open_clip
from media.video_writer import VideoWriter
from tests.helpers.hostile_media import write_with_times
from tests.helpers.media import (
    frame_numbers,
    write_clip,
    write_frame_folder,
    write_recording,
    write_strip,
)

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", Fraction(0)),
        ("12.5", Fraction(25, 2)),
        ("75", Fraction(75)),
        (" .04 ", Fraction(1, 25)),
        ("1.", Fraction(1)),
        ("1:02.5", Fraction(125, 2)),
        ("90:00", Fraction(5400)),
        ("0:01:02", Fraction(62)),
        ("2:00:00.001", Fraction(7200001, 1000)),
    ],
)
def test_times_are_exact(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "1,5", "abc", "1e3", "nan", "1:60", "1:60:00", "1::2", "1:2:3:4", ":5", "."]
)
def test_texts_that_are_no_time(text):
    with pytest.raises(UserError, match="not a time") as caught:
        parse_time(text)
    assert str(caught.value).startswith(f"{text}: ")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Write clips of each kind with 40 frames, at 25 frames per second."""
    folder = tmp_path_factory.mktemp("clips")
    return {
        "mp4": open_clip(write_clip(folder / "a.mp4", 40, gop=12, codec_options={"bf": "3"})),
        "webm": open_clip(write_clip(folder / "a.webm", 40, gop=12)),
        "avi": open_clip(write_clip(folder / "a.avi", 40, codec_options={"bf": "2"})),
        "gif": open_clip(write_clip(folder / "a.gif", 40)),
        "folder": open_clip(write_frame_folder(folder / "a", 40)),
        "strip": open_clip(write_strip(folder / "a.png", 40)),
    }


@pytest.mark.parametrize("kind", ["mp4", "webm", "avi", "gif", "folder", "strip"])
def test_an_excerpt_is_a_clip(clips, kind):
    clip = clips[kind]
    excerpt = Excerpt(clip, Fraction(17, 25), Fraction(31, 25))
    assert excerpt.num_frames == 14
    assert frame_numbers(np.stack(list(excerpt))) == [*range(17, 31)]
    assert frame_numbers(np.stack(list(excerpt))) == [*range(17, 31)]  # a second pass
    assert frame_numbers(np.stack(list(excerpt.frames_from(10)))) == [27, 28, 29, 30]
    np.testing.assert_array_equal(excerpt.read([13, 0, 0]), clip.read([30, 17, 17]))
    assert list(excerpt.times) == [Fraction(number, 25) for number in range(14)]
    assert (excerpt.path, excerpt.frame_rate, excerpt.size) == (clip.path, 25, clip.size)
    for outside in (-1, 14):
        with pytest.raises(VideoError, match=rf"there is no frame {outside}; the excerpt has 14"):
            excerpt.read([0, outside])


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [
        ("0", None, range(40)),
        ("1.56", None, [39]),
        ("0", "0.04", [0]),
        ("0.04", "0.08", [1]),
        ("0.0399", "0.0801", [1, 2]),  # these begin at 0.04 and 0.08 s
        ("0.041", "0.12", [2]),
        ("1.5", "99", [38, 39]),
    ],
)
def test_the_end_is_not_included(clips, start, end, frames):
    excerpt = Excerpt(clips["mp4"], Fraction(start), None if end is None else Fraction(end))
    assert frame_numbers(np.stack(list(excerpt))) == [*frames]
    assert excerpt.start == Fraction(frames[0], 25)


def test_excerpts_that_follow_each_other_share_no_frame(tmp_path):
    """At 30000/1001 frames a second frame 10 begins at 0.33367 s and frame 30 at 1.001 s."""
    clip = open_clip(write_clip(tmp_path / "a.mp4", 60, (16, 16), rate=NTSC))
    tenth = Fraction(10 * 1001, 30000)
    bounds = [Fraction(0), tenth, Fraction(1), None]
    excerpts = [Excerpt(clip, bounds[i] or Fraction(0), bounds[i + 1]) for i in range(3)]
    assert [excerpt.start for excerpt in excerpts] == [0, tenth, Fraction(1001, 1000)]
    assert [excerpt.num_frames for excerpt in excerpts] == [10, 20, 30]
    assert Excerpt(clip, Fraction(1, 3), Fraction(1)).start == tenth


def test_frames_of_a_varying_rate_are_taken_by_their_times(tmp_path):
    """Frames begin at 0, 10, 15 .. ms; the last one lasts for the average of the 9 intervals."""
    times = [0, 10, 15, 45, 80, 90, 150, 160, 210, 270]
    clip = open_clip(write_recording(tmp_path / "a.webm", times))
    assert clip.frame_rate == Fraction(100, 3)
    assert clip.uneven_times == [*(Fraction(time, 1000) for time in times), Fraction(3, 10)]
    excerpt = Excerpt(clip, Fraction("0.09"), Fraction("0.18"))
    assert frame_numbers(np.stack(list(excerpt))) == [5, 6, 7]
    assert excerpt.start == Fraction("0.09")
    assert excerpt.uneven_times == [0, Fraction("0.06"), Fraction("0.07"), Fraction("0.09")]
    later = Excerpt(clip, Fraction("0.091"))
    assert frame_numbers(np.stack(list(later))) == [6, 7, 8, 9]
    assert later.uneven_times == [0, *(Fraction(n, 100) for n in (1, 6, 12, 15))]
    assert Excerpt(clip, end=Fraction("0.089")).uneven_times[-1] == Fraction("0.089")
    message = "no frame from 0.1 s to 0.15 s; one begins at 0.09 s, the next at 0.15 s"
    with pytest.raises(UserError, match=message):
        Excerpt(clip, Fraction("0.1"), Fraction("0.15"))


GAP = 10**9  # seconds


@pytest.fixture(scope="module")
def clip_with_gap(tmp_path_factory):
    """Ten frames at 25 frames per second, and ten at 50 after a gap of 31 years."""
    later = range(1000 * GAP, 1000 * GAP + 200, 20)
    path = tmp_path_factory.mktemp("gap") / "a.mkv"
    return open_clip(write_with_times(path, [*range(0, 400, 40), *later]))


@pytest.mark.parametrize(
    ("start", "end", "rate", "num_frames"),
    [
        ("0", "0.4", 25, 10),
        ("0.04", "0.1", 25, 2),
        ("0.04", "0.05", 25, 1),
        (GAP, None, 50, 10),
        (GAP + Fraction("0.18"), GAP + Fraction("0.19"), None, 1),
    ],
)
@pytest.mark.parametrize("name", ["out", "a.mp4", "a.webm", "a.gif"])
def test_a_part_has_its_own_rate(clip_with_gap, tmp_path, name, start, end, rate, num_frames):
    """A gap elsewhere made the average one frame in years, of which a folder got a single one."""
    end = None if end is None else Fraction(end)
    excerpt = Excerpt(clip_with_gap, Fraction(start), end)
    assert rate is None or excerpt.frame_rate == rate
    assert excerpt.num_frames == num_frames
    path = tmp_path / name
    with VideoWriter(path, excerpt.frame_rate, times=excerpt.uneven_times) as writer:
        for frame in excerpt:
            writer.write(frame)
    written = open_clip(path)
    assert written.num_frames == num_frames
    if num_frames > 2 and rate is not None:
        assert written.frame_rate == rate


def test_all_of_a_clip_has_its_rate(clip_with_gap):
    assert Excerpt(clip_with_gap).frame_rate == clip_with_gap.frame_rate
    assert Excerpt(Excerpt(clip_with_gap, end=Fraction(1))).frame_rate == 25


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("1.6", None, "lasts 1.6 s, cannot start at 1.6 s"),
        ("90", "1", "lasts 1.6 s, cannot start at 90 s"),
        ("1.57", None, "lasts 1.6 s, cannot start at 1.57 s"),
        ("1", "0.5", "starts at 1 s, cannot end at 0.5 s"),
        ("1", "1", "starts at 1 s, cannot end at 1 s"),
        ("0.05", "0.07", "no frame from 0.05 s to 0.07 s; they are 0.04 s apart"),
    ],
)
def test_parts_without_frames_are_one_line(clips, start, end, message):
    clip = clips["mp4"]
    with pytest.raises(UserError) as caught:
        Excerpt(clip, Fraction(start), None if end is None else Fraction(end))
    assert str(caught.value) == f"{clip.path}: {message}"


def test_a_negative_start_is_a_mistake_of_the_caller(clips):
    with pytest.raises(ValueError, match="at least 0, found -1"):
        Excerpt(clips["mp4"], Fraction(-1))
