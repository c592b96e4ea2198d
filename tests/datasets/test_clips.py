import logging
import pickle
from fractions import Fraction
from functools import lru_cache
from itertools import islice

import numpy as np
import pytest

from common.errors import UserError
from configs.schema import AugmentationConfig
from datasets.clips import ClipFolder, inspect_clips
from datasets.loading import loaded_batches
from datasets.pairs import BatchSchedule, FramePairs
from media import video
from media.video import VideoError
from tests.helpers.media import (
    damage,
    frame_numbers,
    leave_behind,
    truncate,
    write_clip,
    write_frame_folder,
    write_strip,
)
from tests.media.test_deinterlace import KINDS, woven, write_interlaced


@pytest.fixture
def root(tmp_path):
    train = tmp_path / "train"
    write_clip(train / "id2#b.mp4", 12)
    write_clip(train / "id2#a.mp4", 10, rate=Fraction(30000, 1001))
    write_clip(train / "id10#c.gif", 8)
    write_frame_folder(train / "id1#walk.v2", 6)
    write_strip(train / "id1#strip.png", 5)
    (train / ".hidden.mp4").touch()
    (train / "notes.txt").touch()
    return tmp_path


def test_clips_in_natural_order(root):
    source = ClipFolder(root, "train", (48, 64))
    names = ["id1#strip", "id1#walk.v2", "id2#a", "id2#b", "id10#c"]
    assert [clip.name for clip in source.clips] == names
    assert [clip.identity for clip in source.clips] == names
    assert [source.num_frames(index) for index in range(5)] == [5, 6, 10, 12, 8]
    assert source.frame_rate(2) == Fraction(30000, 1001)


def test_id_sampling_groups_by_what_precedes_the_hash(root):
    source = ClipFolder(root, "train", (48, 64), id_sampling=True)
    assert [clip.identity for clip in source.clips] == ["id1", "id1", "id2", "id2", "id10"]


def test_read_fits_every_kind_of_clip(root):
    source = ClipFolder(root, "train", (24, 32))
    for index in range(5):
        frames = source.read(index, [4, 0, 4])
        assert (frames.shape, frames.dtype) == ((3, 24, 32, 3), np.uint8)
    assert frame_numbers(source.read(3, [11, 5])) == [11, 5]


def test_pad_and_crop_differ(root):
    padded = ClipFolder(root, "train", (64, 64), fit="pad").read(3, [0])[0]
    cropped = ClipFolder(root, "train", (64, 64), fit="crop").read(3, [0])[0]
    assert (padded[:8] == 0).all()
    assert cropped[:8].min() > 20


def test_clips_that_differ_in_their_suffix_keep_it(tmp_path):
    write_clip(tmp_path / "train" / "a.mp4", 3)
    write_frame_folder(tmp_path / "train" / "a", 3)
    names = [clip.name for clip in ClipFolder(tmp_path, "train", (48, 64)).clips]
    assert names == ["a", "a.mp4"]


def test_every_suffix_of_a_video_counts(tmp_path, caplog):
    """Entries that are left out are reported, but not notes that lie beside the clips."""
    train = tmp_path / "train"
    for name in ("a.m4v", "b.mts", "c.MOV", "d.mpg", "e.wmv"):
        write_clip(train / name.lower(), 12).rename(train / name)
    for name in ("talk.psd", "walk.psd", "song.mp3", "notes.txt", ".hidden.psd"):
        (train / name).touch()
    source = ClipFolder(tmp_path, "train", (48, 64))
    assert [clip.name for clip in source.clips] == ["a", "b", "c", "d", "e"]
    assert [source.num_frames(index) for index in range(5)] == [12] * 5
    lines = inspect_clips(source).summary().splitlines()
    assert lines[1:] == ["left out 1 .mp3 file, 2 .psd files"]
    assert caplog.messages == []


def test_missing_root(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; data\.root needs train/ and"):
        ClipFolder(tmp_path / "nowhere", "train", (48, 64))


def test_missing_split_says_what_is_there(root):
    with pytest.raises(UserError, match=r"test: no such folder; .* holds 1 folder"):
        ClipFolder(root, "test", (48, 64))


def test_split_without_clips_says_what_is_there(root):
    (root / "test").mkdir()
    with pytest.raises(UserError, match=r"test: no clip in it; .* it holds nothing"):
        ClipFolder(root, "test", (48, 64))
    for number in range(3):
        (root / "test" / f"{number}.jpg").touch()
    with pytest.raises(UserError, match=r"it holds 3 \.jpg files"):
        ClipFolder(root, "test", (48, 64))


def test_id_sampling_without_ids(tmp_path):
    write_clip(tmp_path / "train" / "a.mp4", 3)
    with pytest.raises(UserError, match=r"no clip is named id#name.*\(a\).*id_sampling: false"):
        ClipFolder(tmp_path, "train", (48, 64), id_sampling=True)


def test_unreadable_clip_raises_when_read(root):
    (root / "train" / "bad.mp4").write_text("no video")
    source = ClipFolder(root, "train", (48, 64))
    index = [clip.name for clip in source.clips].index("bad")
    with pytest.raises(VideoError, match=r"bad\.mp4: not a video"):
        source.read(index, [0])


@pytest.fixture
def damaged(tmp_path):
    """Write damaged clips of 60 frames.

    `end` breaks off after frame 42, `middle` lacks frames 30 to 35, `folder` lacks frame 3, `start`
    begins with frame 12, and `all` has lost every frame.
    """
    lost = {"end": (43, 59), "middle": (30, 30), "start": (0, 0), "all": (0, 59)}
    for name, (first, last) in lost.items():
        path = tmp_path / "train" / f"{name}.mp4"
        damage(write_clip(path, 60, gop=12, codec_options={"bf": "0"}), first, last)
    folder = write_frame_folder(tmp_path / "train" / "folder", 6)
    truncate(folder / "frame3.png", 0.5)
    return tmp_path


def damaged_clips(root):
    source = ClipFolder(root, "train", (48, 64))
    return source, {clip.name: index for index, clip in enumerate(source.clips)}


def test_damaged_clips_are_used_up_to_the_damage(damaged, caplog):
    source, index = damaged_clips(damaged)
    report = inspect_clips(source)
    assert report.num_frames == 43 + 60 + 6 + 48
    assert [*report.unreadable] == ["all"]
    assert caplog.messages == [
        f"{damaged / 'train' / 'end.mp4'}: frames after 43 of 60 cannot be decoded; using 43"
    ]
    caplog.clear()

    assert frame_numbers(source.read(index["end"], [42, 0])) == [42, 0]
    assert caplog.messages == []
    for frames, expected in (([35, 30], [29, 29]), ([36, 29], [36, 29]), ([59, 33], [59, 29])):
        assert frame_numbers(source.read(index["middle"], frames)) == expected
    assert frame_numbers(source.read(index["folder"], [4, 3])) == [4, 2]
    assert len(caplog.messages) == 2
    assert "middle.mp4: frame 30 cannot be decoded; earlier frames replace such" in caplog.text
    assert "frame3.png: not an image" in caplog.text
    assert frame_numbers(source.read(index["start"], [0, 47])) == [12, 59]
    for use in (lambda: source.read(index["all"], [11]), lambda: source.num_frames(index["all"])):
        with pytest.raises(VideoError, match=r"all\.mp4: .* can(not)? be decoded"):
            use()


@pytest.mark.parametrize(("name", "count"), [("end", 43), ("middle", 30), ("folder", 3)])
def test_stream_of_a_damaged_clip(damaged, caplog, name, count):
    source, index = damaged_clips(damaged)
    assert frame_numbers(np.stack(list(source.stream(index[name])))) == [*range(count)]
    assert len(caplog.messages) == 1
    assert f"{count}" in caplog.text


def test_stream_of_a_clip_that_lost_its_beginning(damaged):
    source, index = damaged_clips(damaged)
    frames = np.stack(list(source.stream(index["start"])))
    np.testing.assert_array_equal(frames, source.read(index["start"], range(48)))


def test_what_was_read_before_does_not_change_what_is_drawn(damaged):
    """Draws agree in a process that read all, one that unpickled the source, and a new one."""
    source, index = damaged_clips(damaged)
    inspect_clips(source)
    used = [index[name] for name in ("end", "middle", "folder")]
    for clip in used:
        list(source.stream(clip))
    unpickled = pickle.loads(pickle.dumps(source))
    counts = [source.num_frames(clip) for clip in used]
    frames = [source.read(clip, range(counts[i])) for i, clip in enumerate(used)]
    for other in (unpickled, damaged_clips(damaged)[0]):
        video._open_clip.cache_clear()
        for i, clip in enumerate(used):
            np.testing.assert_array_equal(other.read(clip, range(counts[i])), frames[i])
            assert other.num_frames(clip) == counts[i]


def test_counts_are_carried_to_other_processes(damaged, monkeypatch):
    """A worker need not decode the end of a clip again."""
    source, index = damaged_clips(damaged)
    inspect_clips(source)
    unpickled = pickle.loads(pickle.dumps(source))
    monkeypatch.setattr("datasets.clips.open_clip", None)
    assert unpickled.num_frames(index["end"]) == 43


def test_inspection(root):
    (root / "train" / "bad.mp4").write_text("no video")
    write_clip(root / "train" / "still.mp4", 1)
    report = inspect_clips(ClipFolder(root, "train", (48, 64), id_sampling=True))

    assert (report.num_clips, report.num_identities) == (7, 5)
    assert report.num_frames == 12 + 10 + 8 + 6 + 5 + 1
    assert report.sizes == {(48, 64): 5, (48, 48): 1}
    assert [*report.unreadable] == ["bad"]
    assert report.too_short == ["still"]
    summary = report.summary()
    assert "7 clips, 5 ids, 42 frames" in summary
    assert "48 x 64 (5), 48 x 48 (1)" in summary
    assert "bad.mp4: not a video: the file holds text" in summary
    assert "1 clip of a single frame, left out of training: still" in summary


def test_summary_names_a_few_of_many(tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(9):
        (tmp_path / "train" / f"{number}.mp4").touch()
    summary = inspect_clips(ClipFolder(tmp_path, "train", (48, 64))).summary()
    assert "9 clips cannot be read" in summary
    assert "4.mp4" in summary
    assert "5.mp4" not in summary
    assert "and 4 more" in summary


def test_files_of_systems_are_no_clips(tmp_path):
    write_clip(tmp_path / "train" / "a.mp4", 3)
    leave_behind(tmp_path / "train")
    clips = ClipFolder(tmp_path, "train", (32, 32))
    assert [clip.name for clip in clips.clips] == ["a"]
    report = inspect_clips(clips)
    assert not report.unreadable
    assert "left out" not in report.summary()


def test_empty_folders_are_left_out_and_reported(tmp_path):
    write_clip(tmp_path / "train" / "a.mp4", 3)
    for name in ("b", "c"):
        (tmp_path / "train" / name).mkdir()
    (tmp_path / "train" / "c" / ".DS_Store").touch()
    clips = ClipFolder(tmp_path, "train", (32, 32))
    assert [clip.name for clip in clips.clips] == ["a"]
    assert "left out 2 empty folders" in inspect_clips(clips).summary().splitlines()


def test_nothing_but_empty_folders(tmp_path):
    (tmp_path / "train" / "b").mkdir(parents=True)
    leave_behind(tmp_path / "train")
    with pytest.raises(UserError, match=r"train: no clip in it; .* it holds 1 folder$"):
        ClipFolder(tmp_path, "train", (32, 32))


def test_changed_frames_are_reported_once_for_all_clips(tmp_path, monkeypatch):
    """There is no line for each clip, and none by workers that open a clip anew."""
    (tmp_path / "train").mkdir()
    for number in range(5):
        path = tmp_path / "train" / f"{number}.mp4"
        write_interlaced(path, [woven(moment) for moment in range(4)], *KINDS["h264.mp4"])
    folder = write_frame_folder(tmp_path / "train" / "folder", 4)
    (folder / "a.psd").touch()
    monkeypatch.setattr(video, "_open_clip", lru_cache(2)(video._open_clip.__wrapped__))
    handler = logging.FileHandler(tmp_path / "log", delay=True)  # workers inherit it
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])

    source = ClipFolder(tmp_path, "train", (48, 64))
    lines = inspect_clips(source).summary().splitlines()
    assert lines[1:] == ["5 clips: interlaced; made whole (bwdif)", "1 clip: left out 1 .psd file"]
    pairs = FramePairs(source, 1, AugmentationConfig(), 0)
    with loaded_batches(pairs, BatchSchedule(len(pairs), 3, seed=0), 2, False) as batches:
        assert len([*islice(batches, 8)]) == 8
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("rate", ["Infinity", "1e999", "NaN", '"1/0"', "-1", "null"])
def test_an_impossible_frame_rate_is_ignored(tmp_path, rate):
    """JSON has numbers that no fraction can represent."""
    folder = write_frame_folder(tmp_path / "train" / "a", 3)
    (folder / "frame_rate.json").write_text(f'{{"frames_per_second": {rate}}}')
    clips = ClipFolder(tmp_path, "train", (48, 64))
    assert inspect_clips(clips).num_frames == 3
    assert clips.frame_rate(0) == 25


def test_an_unexpected_error_of_a_clip_does_not_end_the_inspection(root, monkeypatch):
    def fail_with(error):
        def fail(*_):
            raise error

        monkeypatch.setattr(video, "FolderReader", fail)

    fail_with(OverflowError("cannot convert float infinity to integer"))
    report = inspect_clips(ClipFolder(root, "train", (32, 32)))
    (reason,) = report.unreadable.values()
    assert reason.endswith(": OverflowError: cannot convert float infinity to integer")
    fail_with(MemoryError())
    with pytest.raises(MemoryError):
        inspect_clips(ClipFolder(root, "train", (32, 32)))


def test_checksum_tells_copies_apart(root):
    """It is that of the files' sizes, also of those in a folder of frames."""
    before = ClipFolder(root, "train", (48, 64)).content_checksum()
    assert ClipFolder(root, "train", (24, 32)).content_checksum() == before
    frame = min((root / "train" / "id1#walk.v2").iterdir())
    frame.write_bytes(frame.read_bytes() + b" ")
    changed = ClipFolder(root, "train", (48, 64)).content_checksum()
    (root / "train" / "id2#b.mp4").write_bytes(b"")
    assert len({before, changed, ClipFolder(root, "train", (48, 64)).content_checksum()}) == 3
