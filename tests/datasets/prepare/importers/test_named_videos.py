"""Which file a name in a list stands for."""

import pytest

from common.errors import UserError
from datasets.prepare.footage import BoxedClip, Region, Unreadable
from datasets.prepare.importers.named_videos import NamedVideos
from media.crops import Box

REGION = Region(Box(0, 0, 8, 8), None)


def part(folder, name):
    return NamedVideos(folder).part(name, (1, 4), None, REGION)


@pytest.mark.parametrize("name", ["abc.mp4", "deep/er/abc.webm", "ABC/abc.MKV"])
def test_a_video_of_any_kind_in_any_subfolder(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert part(tmp_path, "abc") == BoxedClip(tmp_path / name, 1, 4, None, REGION)


@pytest.mark.parametrize("name", [".abc.mp4", "abc.txt", "abc", "ABC.mp4"])
def test_what_is_no_video_of_this_name(tmp_path, name):
    (tmp_path / name).touch()
    assert part(tmp_path, "abc") == Unreadable("abc.mp4", "abc.mp4: no video of this name")


def test_two_videos_of_one_name(tmp_path):
    """Only where a list asks for them."""
    for name in ("a.mp4", "more/abc.mp4", "more/abc.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert isinstance(part(tmp_path, "a"), BoxedClip)
    with pytest.raises(UserError, match=r"abc\.mp4 and .*abc\.webm: two videos of one name"):
        part(tmp_path, "abc")


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="videos: no such folder; it should hold the videos of the"):
        NamedVideos(tmp_path / "videos")
