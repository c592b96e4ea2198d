"""The index of a folder of clips: what it saves, when it does not hold, and what it cannot do."""

import json
import os

import pytest

from common.limits import Limits
from datasets import clips as clips_module
from datasets import inspection
from datasets.clip_index import INDEX_FILE
from datasets.clips import ClipFolder, inspect_clips
from media import video
from media.video import VideoError
from tests.helpers.media import damage, write_clip, write_frame_folder

NAMES = ["a.mp4", "b.mp4", "c"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three clips, for which an index is written."""
    monkeypatch.setattr(clips_module, "MIN_FOR_INDEX", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_clip(tmp_path / "data" / "train" / "a.mp4", 5)
    write_clip(tmp_path / "data" / "train" / "b.mp4", 7)
    write_frame_folder(tmp_path / "data" / "train" / "c", 4)
    return tmp_path / "data"


@pytest.fixture
def opened(monkeypatch):
    """Names of the clips that were opened."""
    names: list[str] = []
    original = inspection.open_clip

    def open_clip(path, **options):
        names.append(path.name)
        return original(path, **options)

    monkeypatch.setattr(inspection, "open_clip", open_clip)
    return names


def inspect(root, limits=Limits()):  # noqa: B008
    return inspect_clips(ClipFolder(root, "train", (48, 64), limits=limits))


def index_of(root):
    return json.loads((root / "train" / INDEX_FILE).read_text())["clips"]


def change_index(root, change):
    path = root / "train" / INDEX_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_second_time_no_clip_is_opened(root, opened):
    first = inspect(root)
    assert sorted(opened) == NAMES
    opened.clear()
    source = ClipFolder(root, "train", (48, 64))
    assert inspect_clips(source) == first
    assert source.known_num_frames == {0: 5, 1: 7, 2: 4}
    assert first.num_frames == 16
    assert opened == []
    assert [path.name for path in (root / "train").iterdir() if path.name not in NAMES] == [
        INDEX_FILE
    ]


def test_entries(root):
    inspect(root)
    changed, num_bytes, head, num_frames, height, width, rate, remarks = index_of(root)["a.mp4"]
    status = (root / "train" / "a.mp4").stat()
    assert (changed, num_bytes, len(head)) == (status.st_mtime_ns, status.st_size, 64)
    assert (num_frames, height, width, rate, remarks) == (5, 48, 64, "25", [])


def test_small_folders_get_no_index(root, monkeypatch):
    monkeypatch.setattr(clips_module, "MIN_FOR_INDEX", 4)
    inspect(root)
    assert not (root / "train" / INDEX_FILE).exists()


def test_what_has_changed_is_opened_again(root, opened):
    inspect(root)
    folder = root / "train"
    opened.clear()
    write_clip(folder / "a.mp4", 9)
    assert inspect(root).num_frames == 9 + 7 + 4
    assert opened == ["a.mp4"]
    opened.clear()
    (folder / "c" / "frame3.png").unlink()
    assert inspect(root).num_frames == 9 + 7 + 3
    assert opened == ["c"]
    opened.clear()
    write_clip(folder / "d.mp4", 2)
    (folder / "b.mp4").unlink()
    assert inspect(root).num_frames == 9 + 3 + 2
    assert opened == ["d.mp4"]
    assert sorted(index_of(root)) == ["a.mp4", "c", "d.mp4"]


def test_the_first_clips_alone_leave_the_others_in_the_index(root, opened):
    expected = inspect(root)
    opened.clear()
    write_clip(root / "train" / "a.mp4", 5)
    first = ClipFolder(root, "train", (48, 64))
    first.clips = first.clips[:1]
    assert inspect_clips(first).num_frames == 5
    assert inspect(root) == expected
    assert opened == ["a.mp4"]


def test_another_file_of_the_same_size_and_time_is_opened(root, opened):
    path = root / "train" / "a.mp4"
    inspect(root)
    opened.clear()
    status, content = path.stat(), bytearray(path.read_bytes())
    content[:8] = b"no video"
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    video._open_clip.cache_clear()  # as in another process
    assert [*inspect(root).unreadable] == ["a"]
    assert opened == ["a.mp4"]


def test_unreadable_and_damaged_clips_are_told_each_time(root, opened, caplog):
    path = damage(
        write_clip(root / "train" / "d.mp4", 60, gop=12, codec_options={"bf": "0"}), 43, 59
    )
    (root / "train" / "e.mp4").write_text("no video")
    for _ in range(2):
        opened.clear()
        caplog.clear()
        report = inspect(root)
        assert [*report.unreadable] == ["e"]
        assert report.num_frames == 16 + 43
        assert {"d.mp4", "e.mp4"} <= set(opened)
    assert opened == ["d.mp4", "e.mp4"]
    assert sorted(index_of(root)) == NAMES
    assert str(path) not in (root / "train" / INDEX_FILE).read_text()


ENTRY = [1, 2, "0" * 64, 5, 48, 64, "25", []]


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[" * 100_000,
        '{"format": 1}',
        '{"format": 1, "clips": [1, 2]}',
        '{"format": 2, "clips": {}}',
        '{"format": 1, "clips": {"a.mp4": {"num_frames": 5}}}',
        '{"format": 1, "clips": {"a.mp4": [1e999]}}',
        json.dumps({"format": 1, "clips": {"../../a.mp4": ENTRY, "/etc/passwd": ENTRY, "": ENTRY}}),
    ],
)
def test_a_damaged_index_is_made_again(root, opened, content):
    report = inspect(root)
    opened.clear()
    (root / "train" / INDEX_FILE).write_text(content)
    assert inspect(root) == report
    assert sorted(opened) == NAMES
    assert sorted(index_of(root)) == NAMES


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (3, 0),
        (3, 10**12),
        (3, True),
        (3, "5"),
        (4, -1),
        (5, 2.5),
        (6, "1/0"),
        (6, None),
        (7, "x"),
        (7, ["x" * 10_000]),
        (7, ["x"] * 1000),
        (7, [1]),
    ],
)
def test_an_entry_that_no_clip_can_have_does_not_count(root, opened, position, value):
    report = inspect(root)
    opened.clear()

    def spoil(content):
        content["clips"]["a.mp4"][position] = value

    change_index(root, spoil)
    assert inspect(root) == report
    assert opened == ["a.mp4"]


def test_a_wrong_index_cannot_make_a_reader_believe_it(root):
    """It can change what a start prints; frames that do not exist are an error when they are
    read, and a frame above the limit of pixels is not read.
    """
    inspect(root)

    def lie(content):
        content["clips"]["a.mp4"][3] = 1000

    change_index(root, lie)
    source = ClipFolder(root, "train", (48, 64))
    assert inspect_clips(source).num_frames == 1000 + 7 + 4
    with pytest.raises(VideoError, match="there is no frame 999; it has 5"):
        source.read(0, [999])
    tight = ClipFolder(root, "train", (48, 64), limits=Limits(100, 100))
    assert len(inspect_clips(tight).unreadable) == 3


def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(root, opened, tmp_path):
    (root / "train" / INDEX_FILE).mkdir()  # a folder in its place: no file can be written there
    report = inspect(root)
    opened.clear()
    assert inspect(root) == report
    assert opened == []
    (path,) = (tmp_path / "cache" / "image-animation").iterdir()
    assert sorted(json.loads(path.read_text())["clips"]) == NAMES


def test_no_place_for_the_index(root, opened, monkeypatch):
    (root / "train" / INDEX_FILE).mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert inspect(root) == inspect(root)
    assert sorted(opened) == sorted(2 * NAMES)


def test_nothing_is_written_through_a_link(root, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("mine")
    (root / "train" / INDEX_FILE).symlink_to(other)
    inspect(root)
    assert other.read_text() == "mine"
    assert sorted(index_of(root)) == NAMES
    assert not (root / "train" / INDEX_FILE).is_symlink()


def test_worker_processes_find_the_same(root, monkeypatch, capfd):
    """Warnings of damaged clips come from them, too."""
    path = damage(
        write_clip(root / "train" / "d.mp4", 60, gop=12, codec_options={"bf": "0"}), 43, 59
    )
    (root / "train" / "e.mp4").write_text("no video")
    monkeypatch.setattr(clips_module, "MIN_FOR_INDEX", 100)
    expected = inspect(root)
    capfd.readouterr()
    monkeypatch.setattr(inspection, "MIN_FOR_PROCESSES", 1)
    assert inspect(root) == expected
    assert f"{path}: frames after 43 of 60 cannot be decoded; using 43" in capfd.readouterr().err


def test_pipes_are_not_waited_for(root):
    os.mkfifo(root / "train" / "pipe.mp4")
    assert [*inspect(root).unreadable] == ["pipe"]
