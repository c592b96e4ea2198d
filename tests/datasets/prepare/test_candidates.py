"""Which clips are found, under which names, and in which split."""

import pytest

from datasets.prepare.candidates import find_candidates, split_identities
from datasets.prepare.footage import RecordClip, Unreadable
from errors import UserError
from tests.datasets.prepare.files import robot_record, write_records
from tests.media import truncate, write_clip, write_frame_folder, write_strip


def find(folder, test_share=0.0, seed=0, known=None):
    return find_candidates(folder, None, test_share, seed, known or {})


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
    write_clip(tmp_path / "other" / "no.mp4", 2)
    assert names(find(tmp_path)) == [
        "test/strip",
        "train/id3#walk",
        "train/id00012#21Uxsk56VDQ#00001",
        "train/id10280#NXjT3732Ekg#001093#001192",
    ]


def test_names_that_differ_in_the_suffix_alone_keep_it(tmp_path):
    for name in ("a.mp4", "a.gif", "b.mp4"):
        write_clip(tmp_path / "train" / name, 2)
    assert names(find(tmp_path)) == ["train/a.gif", "train/a.mp4", "train/b"]


def test_the_same_name_twice_is_refused(tmp_path):
    write_clip(tmp_path / "train" / "a#b.mp4", 2)
    write_clip(tmp_path / "train" / "a" / "b.mp4", 2)
    write_clip(tmp_path / "train" / "a#b.gif", 2)
    with pytest.raises(UserError, match=r"2 clips would be train/a#b\.mp4; rename them"):
        find(tmp_path)


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


def test_split_follows_from_the_seed_alone():
    identities = {f"id{n}" for n in range(40)}
    first = split_identities(identities, 0.25, 0, {})
    assert [*first.values()].count("test") == 10
    assert split_identities({f"id{n}" for n in range(39, -1, -1)}, 0.25, 0, {}) == first
    assert split_identities(identities, 0.25, 1, {}) != first
    assert set(split_identities(identities, 0, 0, {}).values()) == {"train"}
    assert [*split_identities(identities, 0.001, 0, {}).values()].count("test") == 1


def test_who_has_a_split_stays_there():
    """New identities join; nobody changes sides."""
    before = split_identities({f"id{n}" for n in range(20)}, 0.2, 0, {})
    after = split_identities({f"id{n}" for n in range(40)}, 0.2, 0, before)
    assert {name: after[name] for name in before} == before
    assert [*after.values()].count("test") == 8


def test_one_identity_cannot_be_split():
    with pytest.raises(UserError, match=r"--test-share 0\.05: there is one identity, anna"):
        split_identities({"anna"}, 0.05, 0, {})
    assert split_identities({"anna"}, 0, 0, {}) == {"anna": "train"}
