"""Which layout a list has, and lists of which nothing can be had."""

import pytest

from common.errors import UserError
from datasets.prepare.importers.listed import read_list
from tests.helpers.clip_files import run
from tests.helpers.media import write_clip
from tests.helpers.runs import error_line


@pytest.fixture
def videos(tmp_path):
    write_clip(tmp_path / "videos" / "abc.mp4", 12)
    return tmp_path / "videos"


def write_table(folder, *rows):
    path = folder / "m.csv"
    path.write_text("\n".join(["video_id,start,end,bbox", *rows]) + "\n")
    return path


def write_track(folder, *lines):
    path = folder / "id" / "abc" / "1.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(["FRAME X Y W H", *lines]) + "\n")
    return folder


def test_a_file_is_a_table_and_a_folder_holds_tracks(tmp_path, videos):
    table = write_table(tmp_path, "abc,1,4,0-0-64-48")
    tracks = write_track(tmp_path / "txt", "3 0 0 0.5 0.5")
    assert [clip.name for clip in read_list(table, videos)] == ["abc#000001#000004"]
    assert [clip.name for clip in read_list(tracks, videos)] == ["id#abc#000003#000004"]


@pytest.mark.parametrize("name", ["m.csv", "txt"])
def test_no_such_list(tmp_path, videos, name):
    with pytest.raises(UserError, match=f"{name}: no such file or folder; give a CSV file, or a f"):
        read_list(tmp_path / name, videos)


def test_a_list_of_nothing(tmp_path, videos):
    (tmp_path / "txt").mkdir()
    for metadata in (write_table(tmp_path), tmp_path / "txt"):
        with pytest.raises(UserError, match=f"{metadata.name}: lists no clips"):
            read_list(metadata, videos)


def test_videos_that_are_elsewhere(tmp_path):
    (tmp_path / "empty").mkdir()
    table = write_table(tmp_path, "abc,1,4,0-0-64-48")
    tracks = write_track(tmp_path / "txt", "3 0 0 0.5 0.5")
    for metadata in (table, tracks):
        expected = f"empty: has none of the videos of .*{metadata.name}; the first would be abc.mp4"
        with pytest.raises(UserError, match=expected):
            read_list(metadata, tmp_path / "empty")
        with pytest.raises(UserError, match="gone: no such folder; it should hold the videos of"):
            read_list(metadata, tmp_path / "gone")


def test_padding_is_not_for_boxes(tmp_path, videos, capsys):
    metadata = write_table(tmp_path, "abc,1,4,0-0-64-48")
    assert run(videos, tmp_path / "out", "--metadata", metadata, "--fit", "pad") == 2
    assert "--fit pad: boxes of --metadata are" in error_line(capsys, "python -m datasets.prepare")
