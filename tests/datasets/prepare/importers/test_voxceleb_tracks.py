"""VoxCeleb's text files: names, times and places worked out by hand, over videos made here."""

from fractions import Fraction

import numpy as np
import pytest

from common.errors import UserError
from datasets.prepare.importers import voxceleb_tracks
from datasets.prepare.importers.named_videos import NamedVideos
from tests.helpers.media import frame_number, frame_numbers, write_clip


@pytest.fixture
def videos(tmp_path):
    write_clip(tmp_path / "videos" / "deep" / "abc.mp4", 40, (48, 64))
    return tmp_path / "videos"


def read_tracks(folder, videos):
    return [*voxceleb_tracks.read_tracks(folder, NamedVideos(videos))]


def track(path, lines, titles="FRAME \tX \tY \tW \tH "):
    rows = "\n".join("\t".join(map(str, line)) for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"Identity  : \tid00012\nOffset    : \t-3\n\n{titles}\n{rows}\n")


def test_tracks_in_shares_and_in_pixels(tmp_path, videos):
    """Pixels are those of a video 360 high, 7.5 times as high as this one."""
    folder = tmp_path / "txt"
    folder.mkdir()
    (folder / "README.txt").write_text("how these were made")
    track(
        folder / "id00012" / "abc" / "00001.txt",
        [("000003", 0.25, 0.25, 0.25, 0.5), ("000004", 0.375, 0.25, 0.375, 0.25)],
    )
    track(
        folder / "id00012" / "abc" / "00002.txt", [(20, 120, 90, 240, 180), (22, 120, 90, 240, 180)]
    )
    shares, pixels = read_tracks(folder, videos)
    assert shares.name == "id00012#abc#000003#000005"
    assert pixels.name == "id00012#abc#000020#000023"
    assert (shares.split, pixels.split) == (None, None)
    # Around both boxes: 16 .. 48, 12 .. 36; a tenth wider on each side.
    for clip in (shares, pixels):
        box = clip.footage.region.within((48, 64))
        assert box == pytest.approx((16 - 3.2, 12 - 2.4, 1.2 * 32, 1.2 * 24))
    assert frame_numbers(np.stack([*shares.footage.open().frames])) == [3, 4]
    assert frame_numbers(np.stack([*pixels.footage.open().frames])) == [20, 21, 22]


def test_tracks_count_25_frames_a_second(tmp_path, videos):
    write_clip(videos / "ntsc.mp4", 60, rate=Fraction(30000, 1001))
    track(tmp_path / "txt" / "id" / "ntsc" / "1.txt", [(20, 0, 0, 0.5, 0.5), (24, 0, 0, 0.5, 0.5)])
    (clip,) = read_tracks(tmp_path / "txt", videos)
    assert [frame_number(frame) for frame in clip.footage.open().frames] == [*range(24, 30)]


@pytest.mark.parametrize(
    ("lines", "titles", "expected"),
    [
        ([(1, 2, 3, 4, 5)], "FRAME X Y", "no line FRAME X Y W H"),
        ([], "FRAME X Y W H", "expected lines FRAME X Y W H"),
        ([(1, 2, 3, 4)], "FRAME X Y W H", "expected lines FRAME X Y W H"),
        ([(1, 2, 3, 0, 5)], "FRAME X Y W H", "expected lines FRAME X Y W H"),
        ([(1, 2, "x", 4, 5)], "FRAME X Y W H", "could not convert"),
        ([(3, 1, 2, 3, 4), (-1, 1, 2, 3, 4)], "FRAME X Y W H", "expected finite numbers"),
        ([(3, 1, 2, 3, 4), ("inf", 1, 2, 3, 4)], "FRAME X Y W H", "expected finite numbers"),
        ([(3, 1, 2, 3, 4), (1, "nan", 2, 3, 4)], "FRAME X Y W H", "expected finite numbers"),
        ([(3, 1, 2, 3, 4), (1, 1, 2, "inf", 4)], "FRAME X Y W H", "expected finite numbers"),
    ],
)
def test_tracks_that_cannot_be_read(tmp_path, videos, lines, titles, expected):
    track(tmp_path / "txt" / "id" / "abc" / "1.txt", lines, titles)
    with pytest.raises(UserError, match=rf"1\.txt: not a list of boxes: {expected}"):
        read_tracks(tmp_path / "txt", videos)


def test_tracks_in_other_folders(tmp_path, videos):
    track(tmp_path / "txt" / "1.txt", [(1, 2, 3, 4, 5)])
    with pytest.raises(UserError, match=r"1\.txt: expected ID/VIDEO/1\.txt in"):
        read_tracks(tmp_path / "txt", videos)
