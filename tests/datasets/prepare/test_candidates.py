"""Tests which clips are found, under which names, and in which split."""

import os

import pytest

from common.errors import UserError
from datasets.prepare.candidates import find_clips, in_splits
from datasets.prepare.footage import Unreadable
from datasets.prepare.importers.bair_records import RecordClip
from datasets.prepare.splits import assign_splits
from tests.helpers.clip_files import robot_record, write_records
from tests.helpers.media import leave_behind, truncate, write_clip, write_frame_folder, write_strip


def find(folder, test_share=0.0, seed=0):
    listed = find_clips(folder, None)
    return in_splits(listed, assign_splits(listed, test_share, seed, set(), {}))


def names(candidates):
    return [f"{clip.split}/{clip.name}" for clip in candidates]


def test_splits_kinds_and_subfolders(tmp_path):
    write_clip(tmp_path / "train" / "id00012" / "21Uxsk56VDQ" / "00001.mp4", 2)
    write_clip(tmp_path / "train" / "id10280#NXjT3732Ekg#001093#001192.mp4", 2)
    write_frame_folder(tmp_path / "train" / "id3" / "walk", 2)
    write_strip(tmp_path / "test" / "strip.png", 2)
    (tmp_path / "train" / "notes.txt").touch()
    (tmp_path / "train" / ".hidden.mp4").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "list.csv").touch()
    assert names(find(tmp_path)) == [
        "test/strip",
        "train/id3#walk",
        "train/id00012#21Uxsk56VDQ#00001",
        "train/id10280#NXjT3732Ekg#001093#001192",
    ]


def test_entries_that_are_left_out_are_reported_once(tmp_path, caplog):
    write_clip(tmp_path / "id1" / "a.m4v", 12)
    write_clip(tmp_path / "id2" / "b.mts", 12)
    for name in ("id1/a.psd", "id2/b.psd", "id2/notes.txt"):
        (tmp_path / name).touch()
    assert names(find(tmp_path)) == ["train/id1#a", "train/id2#b"]
    assert caplog.messages == [f"{tmp_path}: left out 2 .psd files"]


def test_trees_of_voxceleb2(tmp_path):
    """dev/ is the training split, and mp4/ is not an identity."""
    write_clip(tmp_path / "dev" / "mp4" / "id1" / "video" / "00001.mp4", 2)
    write_clip(tmp_path / "test" / "mp4" / "id8" / "video" / "00001.mp4", 2)
    (tmp_path / "test" / "notes.txt").touch()
    assert names(find(tmp_path)) == ["test/id8#video#00001", "train/id1#video#00001"]


def test_all_splits_are_taken(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        write_clip(tmp_path / split / f"{number}.mp4", 2)
    assert names(find(tmp_path)) == ["test/1", "test/2", "train/0"]


@pytest.mark.parametrize("beside", ["extra/a.mp4", "clip.mp4", "validation/id/a.mp4"])
def test_clips_beside_the_splits_are_refused(tmp_path, beside):
    write_clip(tmp_path / "train" / "a.mp4", 2)
    write_clip(tmp_path / beside, 2)
    name = beside.split("/")[0]
    with pytest.raises(UserError, match=f"{name}: has clips, but lies beside train/; move it"):
        find(tmp_path)


@pytest.mark.parametrize("other", ["a#b.gif", "a/b.mp4"])
def test_the_same_name_twice_is_refused(tmp_path, other):
    """If the suffix became part of the name, a clip that joins would rename an earlier one."""
    write_clip(tmp_path / "train" / "a#b.mp4", 2)
    write_clip(tmp_path / "train" / other, 2)
    with pytest.raises(UserError, match=r"2 clips would be train/a#b; rename"):
        find(tmp_path)


@pytest.mark.parametrize("other", ["video.mp4", "inner/a.png", "traj.tfrecords"])
def test_pictures_beside_clips_are_refused(tmp_path, other):
    write_frame_folder(tmp_path / "train" / "id1", 2)
    (tmp_path / "train" / "id1" / other).parent.mkdir(exist_ok=True)
    (tmp_path / "train" / "id1" / other).touch()
    name = other.split("/")[0]
    with pytest.raises(UserError, match=f"id1: holds pictures, .* and {name}, as a folder of"):
        find(tmp_path)


def test_a_loop_of_links(tmp_path):
    write_clip(tmp_path / "train" / "id1" / "a.mp4", 2)
    (tmp_path / "train" / "id1" / "up").symlink_to(tmp_path / "train")
    with pytest.raises(UserError, match="up: a link to a folder that it lies in"):
        find(tmp_path)


def test_folders_that_link_to_each_other_are_searched_once(tmp_path, caplog):
    """Links are followed last, so that a clip is named after the folder that it lies in."""
    write_clip(tmp_path / "train" / "b" / "clip.mp4", 2)
    (tmp_path / "train" / "c").mkdir()
    (tmp_path / "train" / "b" / "there").symlink_to(tmp_path / "train" / "c")
    (tmp_path / "train" / "c" / "back").symlink_to(tmp_path / "train" / "b")
    (tmp_path / "train" / "a").symlink_to(tmp_path / "train" / "b")
    assert names(find(tmp_path)) == ["train/b#clip"]
    (record,) = (record for record in caplog.records if "link" in record.getMessage())
    assert record.getMessage() == (
        f"{tmp_path}: left out 3 links to folders that are searched anyway: "
        f"{tmp_path / 'train' / 'a'}"
    )


def test_folders_that_links_lead_to_elsewhere_are_taken_once(tmp_path):
    """Links that lead back to where they came from do no harm."""
    store, data = tmp_path / "store", tmp_path / "data"
    write_clip(store / "id1" / "a.mp4", 2)
    write_clip(data / "train" / "id2" / "b.mp4", 2)
    write_frame_folder(store / "frames", 2)
    for name in ("id1", "frames"):
        (data / "train" / name).symlink_to(store / name)
        (data / "train" / f"{name}-again").symlink_to(store / name)
    (store / "id1" / "back").symlink_to(data / "train")
    assert names(find(data)) == ["train/frames", "train/id1#a", "train/id2#b"]


@pytest.mark.parametrize("name", ["a\nb.mp4", "a\\b.mp4", b"caf\xe9.mp4"])
def test_names_that_no_folder_can_have(tmp_path, name):
    path = tmp_path / "train" / os.fsdecode(name)
    path.parent.mkdir()
    path.touch()
    with pytest.raises(UserError, match="cannot be a name: it has") as caught:
        find(tmp_path)
    assert str(caught.value).isprintable()


def test_records_are_clips(tmp_path):
    records = [robot_record(n) for n in range(3)]
    write_records(tmp_path / "train" / "traj_0_to_255.tfrecords", records)
    torn = write_records(tmp_path / "test" / "traj_0_to_255.tfrecords", records)
    truncate(torn, 0.9)
    found = find(tmp_path)
    assert names(found) == [
        *(f"test/traj_0_to_255_{n:05d}" for n in range(3)),
        *(f"train/traj_0_to_255_{n:05d}" for n in range(3)),
    ]
    kinds = [type(clip.footage) for clip in found]
    assert kinds == [RecordClip, RecordClip, Unreadable, *[RecordClip] * 3]


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: (folder / "train").mkdir()])
def test_nothing_to_prepare(tmp_path, make):
    make(tmp_path)
    with pytest.raises(UserError, match="no clip in it; a clip is a video file"):
        find(tmp_path)


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        find(tmp_path / "nowhere")


def test_identities_are_kept_apart(tmp_path):
    for identity in range(6):
        for video in range(2):
            write_clip(tmp_path / f"id{identity}#{video}.mp4", 2)
    found = find(tmp_path, test_share=0.3)
    splits = {split: {c.name.split("#")[0] for c in found if c.split == split} for split in
              ("train", "test")}  # fmt: skip
    assert (len(splits["train"]), len(splits["test"])) == (4, 2)
    assert not splits["train"] & splits["test"]
    assert len(found) == 12


def test_files_of_systems_are_no_clips(tmp_path, caplog):
    """Empty folders are no clips either, but they are reported."""
    write_clip(tmp_path / "train" / "a.mp4", 2)
    for folder in (tmp_path, tmp_path / "train", tmp_path / "train" / "b"):
        leave_behind(folder)
    write_clip(tmp_path / "train" / "b" / "c.mp4", 2)
    (tmp_path / "train" / "empty").mkdir()
    assert [clip.name for clip in find_clips(tmp_path, None)] == ["a", "b#c"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: left out 1 empty folder"
    ]
