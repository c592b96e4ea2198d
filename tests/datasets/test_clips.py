from fractions import Fraction

import numpy as np
import pytest

from datasets.clips import ClipFolder, inspect_clips
from datasets.video import VideoError
from errors import UserError
from tests.media import frame_numbers, write_clip, write_frame_folder, write_strip


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


def test_missing_root(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; data\.root needs train/ and"):
        ClipFolder(tmp_path / "nowhere", "train", (48, 64))


def test_missing_split_says_what_is_there(root):
    with pytest.raises(UserError, match=r"test: no such folder; .* holds 1 folders"):
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
    with pytest.raises(UserError, match=r"no clip is named id#name.*a\.mp4.*id_sampling: false"):
        ClipFolder(tmp_path, "train", (48, 64), id_sampling=True)


def test_unreadable_clip_raises_when_read(root):
    (root / "train" / "bad.mp4").write_text("no video")
    source = ClipFolder(root, "train", (48, 64))
    index = [clip.name for clip in source.clips].index("bad")
    with pytest.raises(VideoError, match=r"bad\.mp4: not a video"):
        source.read(index, [0])


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
    assert "1 clips have a single frame: still" in summary


def test_summary_names_a_few_of_many(tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(9):
        (tmp_path / "train" / f"{number}.mp4").touch()
    summary = inspect_clips(ClipFolder(tmp_path, "train", (48, 64))).summary()
    assert "9 clips cannot be read" in summary
    assert "4.mp4" in summary
    assert "5.mp4" not in summary
    assert "and 4 more" in summary
