"""Tests which identities go to training and which to the test, in first and later runs."""

from pathlib import Path

import pytest

from common.errors import UserError
from datasets.prepare.footage import Listed, WholeClip
from datasets.prepare.splits import (
    assign_splits,
    note_drawn,
    read_drawn,
    shared_identities,
    split_identities,
)


def listed(*places):
    """Make clips from `train/name`, or from `name` for a clip without a stated split."""
    parts = [place.rpartition("/") for place in places]
    return [Listed(name, split or None, WholeClip(Path(name))) for split, _, name in parts]


def assign(clips, finished=(), drawn=None, seed=0):
    places = {tuple(place.split("/")) for place in finished}
    return assign_splits(clips, 0.25, seed, places, drawn or {})


def test_split_follows_from_the_seed_alone():
    identities = {f"id{n}" for n in range(40)}
    first = split_identities(identities, 0.25, 0, {})
    assert [*first.values()].count("test") == 10
    assert split_identities({f"id{n}" for n in range(39, -1, -1)}, 0.25, 0, {}) == first
    assert split_identities(identities, 0.25, 1, {}) != first
    assert set(split_identities(identities, 0, 0, {}).values()) == {"train"}
    assert [*split_identities(identities, 0.001, 0, {}).values()].count("test") == 1


def test_identities_keep_their_split():
    """New identities join, and no earlier one changes its split."""
    before = split_identities({f"id{n}" for n in range(20)}, 0.2, 0, {})
    after = split_identities({f"id{n}" for n in range(40)}, 0.2, 0, before)
    assert {name: after[name] for name in before} == before
    assert [*after.values()].count("test") == 8


def test_one_identity_cannot_be_split():
    with pytest.raises(UserError, match=r"--test-share 0\.05: there is one identity, anna"):
        split_identities({"anna"}, 0.05, 0, {})
    assert split_identities({"anna"}, 0, 0, {}) == {"anna": "train"}


def test_training_is_never_empty():
    assert sorted(split_identities({"anna", "ben"}, 0.9, 0, {}).values()) == ["test", "train"]


@pytest.mark.parametrize(
    ("clips", "finished", "expected"),
    [
        # First the same clip moves, alone in its identity or not; then another one of its identity.
        (["test/a"], ["train/a"], "test/a: clip a was prepared for train/"),
        (["test/a#1", "train/a#2"], ["train/a#1", "train/a#2"], "clip a#1 was prepared for train"),
        (["train/a#3"], ["test/a#1"], "train/a#3: identity a was prepared for test/"),
    ],
)
def test_moving_to_the_other_split_is_refused(clips, finished, expected):
    with pytest.raises(UserError, match=expected):
        assign(listed(*clips), finished)


def test_the_same_name_in_both_splits_is_the_inputs_choice():
    """BAIR has a file traj_0_to_255 in train/ and another one in test/."""
    clips = listed("train/traj_0", "test/traj_0", "train/a#1", "test/a#2", "test/a#3")
    assert assign(clips, ["train/traj_0", "train/a#1", "test/a#2"]) == {}
    assert shared_identities({(clip.split, clip.name) for clip in clips}) == ["a"]


def test_clips_without_a_split_join_their_identity():
    clips = listed("test/a#1", "a#2", "train/b#1", "b#2", "c#1", "c#2", "d", "e", "f", "g")
    for seed in range(8):
        splits = assign(clips, finished=["test/c#0"], drawn={"d": "test"}, seed=seed)
        assert {name: splits[name] for name in "abcd"} == {
            "a": "test", "b": "train", "c": "test", "d": "test",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("clips", "finished"),
    [
        (["a#1", "b"], ["train/a#1", "test/a#2"]),
        (["a#1", "train/a#2", "test/a#3"], []),
    ],
)
def test_identities_in_both_splits_cannot_be_joined(clips, finished):
    with pytest.raises(UserError, match="identity a: has clips in train/ and in test/"):
        assign(listed(*clips), finished)


def test_drawn_splits_are_kept(tmp_path):
    """Clips that are added after an interruption move no identity to the other split."""
    first = assign(listed(*"abcdefgh"))
    note_drawn(tmp_path, first)
    later = assign(listed(*"abcdefghijklmnopqrstuvwxyz"), ["train/a"], read_drawn(tmp_path))
    assert {name: later[name] for name in first} == first
    assert assign(listed(*"abcdefghijklmnopqrstuvwxyz")) != later


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "val"}'])
def test_damaged_file_of_drawn_splits(tmp_path, text):
    assert read_drawn(tmp_path) == {}
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(UserError, match=r"splits\.json: damaged"):
        read_drawn(tmp_path)


def test_a_link_that_leads_nowhere_is_not_drawn_anew(tmp_path):
    (tmp_path / "splits.json").symlink_to("elsewhere.json")
    with pytest.raises(UserError, match=r"splits\.json: damaged; remove it"):
        read_drawn(tmp_path)
