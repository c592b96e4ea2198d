"""FOMM's tables: names, times and places worked out by hand, over videos made here."""

from fractions import Fraction

import numpy as np
import pytest

from common.errors import UserError
from datasets.packed import PackedClips
from datasets.prepare.footage import BoxedClip, Unreadable
from datasets.prepare.importers import fomm_table
from datasets.prepare.importers.named_videos import NamedVideos
from media.video import open_clip
from media.video_writer import VideoWriter
from tests.helpers.clip_files import quadrants, run
from tests.helpers.media import damage, frame_number, frame_numbers, write_clip
from tests.helpers.runs import error_line

VOX = "person_id,video_id,start,end,bbox,fps,width,height,partition\n"


@pytest.fixture
def videos(tmp_path):
    """A numbered clip of 40 frames at 25 per second, in a subfolder."""
    write_clip(tmp_path / "videos" / "deep" / "abc.mp4", 40, (48, 64))
    return tmp_path / "videos"


@pytest.fixture
def rated_videos(tmp_path):
    """Numbered clips of 60 frames at 25, 30000/1001 and 24000/1001 per second."""
    write_clip(tmp_path / "rated" / "abc.mp4", 60)
    write_clip(tmp_path / "rated" / "ntsc.mp4", 60, rate=Fraction(30000, 1001))
    write_clip(tmp_path / "rated" / "film.mp4", 60, rate=Fraction(24000, 1001))
    return tmp_path / "rated"


def read_table(path, videos):
    return [*fomm_table.read_table(path, NamedVideos(videos))]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def table(folder, *rows, titles="person_id,video_id,start,end,bbox,fps"):
    return write(folder / "m.csv", "\n".join([titles, *rows]) + "\n")


def test_rows_of_the_published_tables(tmp_path, videos):
    metadata = write(
        tmp_path / "vox-metadata.csv",
        VOX + "id10001,abc#000016,5,9,10-20-30-60,25.0,128,96,train\n"
        "id10002,gone,0,100,1-2-3-4,29.97002997,640,480,test\n",
    )
    first, second = read_table(metadata, videos)
    assert first.name == "id10001#000016#abc#000005#000009"
    assert first.split == "train"
    assert isinstance(first.footage, BoxedClip)
    # The boxes are for a picture of twice the size.
    assert first.footage.region.within((48, 64)) == (5, 10, 10, 20)
    opened = first.footage.open()
    assert frame_numbers(np.stack([*opened.frames])) == [5, 6, 7, 8]
    assert second.name == "id10002#gone#000000#000100"
    assert isinstance(second.footage, Unreadable)
    assert second.split == "test"


def test_frame_numbers_count_at_the_rate_of_the_table(tmp_path, videos):
    """Frames 6 to 12 at 12.5 per second are shown when 12 to 24 at 25 are."""
    metadata = write(tmp_path / "m.csv", "video_id,start,end,bbox,fps\nabc,6,12,0-0-64-48,12.5\n")
    ((name, split, footage),) = read_table(metadata, videos)
    assert (name, split) == ("abc#000006#000012", None)
    opened = footage.open()
    assert opened.frame_rate == 25
    assert frame_numbers(np.stack([*opened.frames])) == [*range(12, 24)]


def test_without_rate_and_size_those_of_the_file_count(tmp_path, videos):
    metadata = write(tmp_path / "m.csv", "bbox,end,start,video_id,more\n0-0-64-48,9,7,abc,x\n")
    ((_, _, footage),) = read_table(metadata, videos)
    assert footage.region.within((48, 64)) == (0, 0, 64, 48)
    assert [frame_number(frame) for frame in footage.open().frames] == [7, 8]


def test_frames_at_times_of_their_own(tmp_path):
    """Frames 5 to 8 of the file by their numbers; at 50 frames a second what is shown from 0.2 s up
    to 0.48 s, of which there are three frames and no more.
    """
    times = [0, 1, 2, 3, 4, 5, 8, 11, 12, 13, 14, 25]
    write_clip(tmp_path / "v" / "abc.mp4", times=times, codec_options={"bf": "0"})
    by_number = write(tmp_path / "n.csv", "video_id,start,end,bbox\nabc,5,8,0-0-64-48\n")
    by_time = write(tmp_path / "t.csv", "video_id,start,end,bbox,fps\nabc,10,24,0-0-64-48,50\n")
    for table, frames in ((by_number, [5, 6, 7]), (by_time, [5, 6, 7])):
        ((_, _, footage),) = read_table(table, tmp_path / "v")
        opened = footage.open()
        assert frame_numbers(np.stack([*opened.frames])) == frames
        assert opened.num_frames == 3


def test_a_part_that_goes_beyond_the_end_of_uneven_frames(tmp_path):
    """From 0.2 s on there are 7 frames, the last from 1 s to 12 / 11 s: 11 a second on average. Up
    to 2.04 s 10.4 more are missing.
    """
    times = [0, 1, 2, 3, 4, 5, 8, 11, 12, 13, 14, 25]
    path = write_clip(tmp_path / "v" / "abc.mp4", times=times, codec_options={"bf": "0"})
    clip = open_clip(path)
    assert (clip.frame_rate, clip.uneven_times[-1]) == (11, Fraction(12, 11))
    table = write(tmp_path / "t.csv", "video_id,start,end,bbox,fps\nabc,10,102,0-0-64-48,50\n")
    ((_, _, footage),) = read_table(table, tmp_path / "v")
    opened = footage.open()
    assert frame_numbers(np.stack([*opened.frames])) == [5, 6, 7, 8, 9, 10, 11]
    assert opened.num_frames == 7 + 10


def write_quadrants(path, num_frames=30):
    with VideoWriter(path, Fraction(25)) as writer:
        for _ in range(num_frames):
            writer.write(quadrants())
    return path


def test_what_is_cut_out(tmp_path):
    """Two quarters have their colours; a narrow box is widened, not squashed."""
    write_quadrants(tmp_path / "videos" / "abc.mp4")
    metadata = write(
        tmp_path / "m.csv",
        VOX + "a,abc,0,2,64-0-128-48,25,128,96,train\n"
        "b,abc,0,2,0-96-64-192,25,128,192,train\n"
        "c,abc,0,2,60-0-68-96,25,128,96,test\n",
    )
    assert run(tmp_path / "videos", tmp_path / "out", "--metadata", metadata) == 0
    clips = PackedClips(tmp_path / "out" / "train", (48, 64))
    green = clips.read(0, [1])[0].mean(axis=(0, 1))
    assert green == pytest.approx([0, 200, 0], abs=12)
    blue = clips.read(1, [1])[0].mean(axis=(0, 1))
    assert blue == pytest.approx([0, 0, 200], abs=12)
    (middle,) = PackedClips(tmp_path / "out" / "test", (48, 64)).read(0, [0])
    # 8 x 96 becomes 128 x 96: the whole picture, at half the size.
    assert middle[:20, :28].mean(axis=(0, 1)) == pytest.approx([200, 0, 0], abs=12)


def test_missing_and_short_videos_are_reported(tmp_path, videos):
    metadata = write(
        tmp_path / "m.csv",
        VOX + "a,abc,0,20,0-0-64-48,25,64,48,train\n"
        "a,gone,0,20,0-0-64-48,25,64,48,train\n"
        "a,abc,100,120,0-0-64-48,25,64,48,test\n"
        "a,abc,0,20,100-100-164-148,25,64,48,test\n",
    )
    assert run(videos, tmp_path / "out", "--metadata", metadata) == 0
    rows = (tmp_path / "out" / "report.csv").read_text()
    assert "a#gone#000000#000020,rejected,cannot be read,gone.mp4: no video of this name" in rows
    assert "has 40 frames, cannot start at 100" in rows
    assert "next to nothing of the picture" in rows


def test_damage_elsewhere_in_a_video_is_not_reported(tmp_path):
    video = write_clip(tmp_path / "videos" / "abc.mp4", 60, gop=12, codec_options={"bf": "0"})
    damage(video, 30, 59)
    text = "video_id,start,end,bbox,partition\nabc,0,10,0-0-64-48,train\nabc,5,25,0-0-64-48,train\n"
    metadata = write(tmp_path / "m.csv", text)
    assert run(tmp_path / "videos", tmp_path / "out", "--metadata", metadata) == 0
    assert len((tmp_path / "out" / "report.csv").read_text().splitlines()) == 1
    clips = PackedClips(tmp_path / "out" / "train", (48, 64))
    assert frame_numbers(clips.read(1, range(20))) == [*range(5, 25)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("video,begin\n", "has no column video_id, start, end, bbox, but video, begin"),
        ("", "has no column"),
        (VOX, "lists no clips"),
        (VOX + "a,abc,0,20,0-0-64,25,64,48,train\n", "line 2 cannot be read"),
        (VOX + "a,abc,x,20,0-0-64-48,25,64,48,train\n", "line 2 cannot be read"),
        (VOX + "a,abc,9,9,0-0-64-48,25,64,48,train\n", "frames 9 to 9, box 0-0-64-48 hold nothing"),
        (VOX + "a,abc,0,9,0-0-64-48,0,64,48,train\n", "fps, width and height must be above 0"),
        (VOX + "a,abc,0,9,0-0-64-48,25,0,48,train\n", "fps, width and height must be above 0"),
        (VOX + "a,abc,0,9,0-0-64-48,25,64,48,both\n", "partition both is neither train nor test"),
        (VOX + "a,abc\n", "line 2 cannot be read"),
        (VOX + "a,gone,0,9,0-0-64-48,25,64,48,test\n", "has none of the videos.*first.*gone.mp4"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, videos, text, expected, capsys):
    metadata = write(tmp_path / "m.csv", text)
    assert run(videos, tmp_path / "out", "--metadata", metadata) == 2
    line = error_line(capsys, "python -m datasets.prepare")
    with pytest.raises(UserError, match=expected):
        raise UserError(line)


@pytest.mark.parametrize(
    ("video", "fps"),
    [("ntsc", "29.97"), ("ntsc", "29.97002997"), ("ntsc", "30"), ("film", "23.98"),
     ("film", "23.976"), ("film", "23.97")],
)  # fmt: skip
def test_rounded_rates_are_those_of_the_file(tmp_path, rated_videos, video, fps):
    (clip,) = read_table(table(tmp_path, f"a,{video},50,55,0-0-64-48,{fps}"), rated_videos)
    assert [frame_number(frame) for frame in clip.footage.open().frames] == [*range(50, 55)]


def test_another_rate_is_another_time(tmp_path, rated_videos):
    """Frame 20 at 25 per second is shown at 0.8 s, frame 23.98 at 30000/1001."""
    (clip,) = read_table(table(tmp_path, "a,ntsc,20,25,0-0-64-48,25"), rated_videos)
    assert [frame_number(frame) for frame in clip.footage.open().frames] == [*range(24, 30)]


@pytest.mark.parametrize(
    "row",
    [
        "a,abc,-1,10,0-0-64-48,25",
        "a,abc,inf,inf,0-0-64-48,25",
        "a,abc,0,inf,0-0-64-48,25",
        "a,abc,0,10,nan-0-64-48,25",
        "a,abc,0,10,0-0-inf-48,25",
        "a,abc,0,10,0-0-64-48,nan",
        "../../../escaped,abc,0,10,0-0-64-48,25",
        "/tmp/escaped,abc,0,10,0-0-64-48,25",
        ".hidden,abc,0,10,0-0-64-48,25",
        "a\\b,abc,0,10,0-0-64-48,25",
        "a\tb,abc,0,10,0-0-64-48,25",
    ],
)
def test_rows_that_make_no_sense(tmp_path, videos, row, capsys):
    metadata = table(tmp_path, "a,abc,1,4,0-0-64-48,25", row)
    assert run(videos, tmp_path / "out", "--metadata", metadata) == 2
    assert "m.csv: line 3 cannot be read: " in error_line(capsys, "python -m datasets.prepare")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "out", "videos"]


def test_two_people_in_the_same_part_of_a_video(tmp_path, videos):
    left, right = ("a,abc,1,4,0-0-32-48,25", "a,abc,1,4,32-0-64-48,25")
    first, second = read_table(table(tmp_path, left, right, left), videos)
    assert first.name == "a#abc#000001#000004"
    assert second.name == "a#abc#000001#000004#2"
    assert second.footage.region.box == (32, 0, 32, 48)


def test_the_mark_that_spreadsheets_put_first(tmp_path, videos):
    metadata = table(tmp_path, "abc,1,4,0-0-64-48", titles="\ufeffvideo_id,start,end,bbox")
    assert [clip.name for clip in read_table(metadata, videos)] == ["abc#000001#000004"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"a": "5 of 15 frames; the video has no more", "b": "10 of 20 frames; the video has"}),
        (["--frame-step", "4"], {"a": "2 of 4 frames", "b": "3 of 5 frames"}),
        (["--max-frames", "5"], {}),
    ],
)
def test_parts_behind_the_end_are_reported(tmp_path, rated_videos, options, expected):
    """Of every row, though the rows share a video."""
    metadata = table(
        tmp_path,
        "a,abc,55,70,0-0-64-48,25,train",
        "b,abc,50,70,0-0-64-48,25,train",
        "c,abc,40,60,0-0-64-48,25,train",
        titles="person_id,video_id,start,end,bbox,fps,partition",
    )
    assert run(rated_videos, tmp_path / "out", "--metadata", metadata, *options) == 0
    rows = (tmp_path / "out" / "report.csv").read_text().splitlines()[1:]
    assert len(rows) == len(expected)
    for row, (name, detail) in zip(rows, expected.items(), strict=True):
        assert row.startswith(f"train,{name}#abc#")
        assert f"shortened,ends early,{detail}" in row
