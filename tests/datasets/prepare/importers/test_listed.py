"""Odd rows of lists of boxes: rounded rates, repeats, numbers and names that make no sense."""

from fractions import Fraction

import pytest

from datasets.prepare.importers.boxes import read_boxes
from tests.helpers.clip_files import run
from tests.helpers.media import frame_number, write_clip
from tests.helpers.runs import error_line


@pytest.fixture
def videos(tmp_path):
    write_clip(tmp_path / "videos" / "abc.mp4", 60)
    write_clip(tmp_path / "videos" / "ntsc.mp4", 60, rate=Fraction(30000, 1001))
    write_clip(tmp_path / "videos" / "film.mp4", 60, rate=Fraction(24000, 1001))
    return tmp_path / "videos"


def table(folder, *rows, titles="person_id,video_id,start,end,bbox,fps"):
    path = folder / "m.csv"
    path.write_text("\n".join([titles, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("video", "fps"),
    [("ntsc", "29.97"), ("ntsc", "29.97002997"), ("ntsc", "30"), ("film", "23.98"),
     ("film", "23.976"), ("film", "23.97")],
)  # fmt: skip
def test_rounded_rates_are_those_of_the_file(tmp_path, videos, video, fps):
    (clip,) = read_boxes(table(tmp_path, f"a,{video},50,55,0-0-64-48,{fps}"), videos)
    assert [frame_number(frame) for frame in clip.footage.open().frames] == [*range(50, 55)]


def test_another_rate_is_another_time(tmp_path, videos):
    """Frame 20 at 25 per second is shown at 0.8 s, frame 23.98 at 30000/1001."""
    (clip,) = read_boxes(table(tmp_path, "a,ntsc,20,25,0-0-64-48,25"), videos)
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
    first, second = read_boxes(table(tmp_path, left, right, left), videos)
    assert first.name == "a#abc#000001#000004"
    assert second.name == "a#abc#000001#000004#2"
    assert second.footage.region.box == (32, 0, 32, 48)


def test_the_mark_that_spreadsheets_put_first(tmp_path, videos):
    metadata = table(tmp_path, "abc,1,4,0-0-64-48", titles="\ufeffvideo_id,start,end,bbox")
    assert [clip.name for clip in read_boxes(metadata, videos)] == ["abc#000001#000004"]


def test_padding_is_not_for_boxes(tmp_path, videos, capsys):
    metadata = table(tmp_path, "a,abc,1,4,0-0-64-48,25")
    assert run(videos, tmp_path / "out", "--metadata", metadata, "--fit", "pad") == 2
    assert "--fit pad: boxes of --metadata are" in error_line(capsys, "python -m datasets.prepare")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"a": "5 of 15 frames; the video has no more", "b": "10 of 20 frames; the video has"}),
        (["--frame-step", "4"], {"a": "2 of 4 frames", "b": "3 of 5 frames"}),
        (["--max-frames", "5"], {}),
    ],
)
def test_parts_behind_the_end_are_reported(tmp_path, videos, options, expected):
    """Of every row, though the rows share a video."""
    metadata = table(
        tmp_path,
        "a,abc,55,70,0-0-64-48,25,train",
        "b,abc,50,70,0-0-64-48,25,train",
        "c,abc,40,60,0-0-64-48,25,train",
        titles="person_id,video_id,start,end,bbox,fps,partition",
    )
    assert run(videos, tmp_path / "out", "--metadata", metadata, *options) == 0
    rows = (tmp_path / "out" / "report.csv").read_text().splitlines()[1:]
    assert len(rows) == len(expected)
    for row, (name, detail) in zip(rows, expected.items(), strict=True):
        assert row.startswith(f"train,{name}#abc#")
        assert f"shortened,ends early,{detail}" in row
