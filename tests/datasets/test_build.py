"""Tests of the clips and pairs that a data section gives, and of the checks before training."""

from pathlib import Path

import pytest

import train
from common.cli import run_entry_point
from common.errors import UserError
from configs.schema import Config
from datasets.build import (
    build_pairs,
    build_source,
    clip_facts,
    leave_out_single_frames,
    preflight,
)
from datasets.prepare import __main__ as prepare
from tests.helpers.factories import tiny_config
from tests.helpers.media import truncate, write_clip, write_frame_folder
from tests.helpers.runs import call, error_line, tiny, write_clips


def clips_config(root, *overrides: str) -> Config:
    return tiny_config("data.kind=clips", f"data.root={root}", *overrides)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("data"))


def test_clips_of_unlike_shapes_and_kinds(root):
    config = clips_config(root)
    train_clips = build_source(config.data, "train")
    assert [clip.name for clip in train_clips.clips] == ["clip0", "clip1", "folder", "tall"]
    for index in range(4):
        assert train_clips.read(index, [0, 1]).shape == (2, 32, 32, 3)
    report = preflight(train_clips)
    assert report.startswith(f"{root / 'train'}: 4 clips, 4 ids, 23 frames; height x width: ")
    for size in ("48 x 66 (1)", "50 x 66 (1)", "37 x 51 (1)", "66 x 34 (1)"):
        assert size in report


def test_puppets():
    config = tiny_config()
    assert preflight(build_source(config.data, "test")) == (
        "test: 2 puppets, 4 frames each, 32 x 32 pixels"
    )
    assert len(build_pairs(config)) == 16


def test_puppets_have_two_splits():
    with pytest.raises(UserError, match="split val: puppets have the splits train and test"):
        build_source(tiny_config().data, "val")


def test_ids(tmp_path):
    for name in ("a#1", "a#2", "b#1"):
        write_frame_folder(tmp_path / "train" / name, 2)
    write_frame_folder(tmp_path / "test" / "no-id-here", 2)
    config = clips_config(tmp_path, "data.id_sampling=true")
    assert len(build_pairs(config)) == 4  # of 2 ids x 2 repeats
    assert "3 clips, 2 ids" in preflight(build_source(config.data, "train"))
    assert len(build_source(config.data, "test").clips) == 1  # only training samples by id


def test_nothing_would_train(root):
    with pytest.raises(UserError, match="4 clips x 3 repeats, batch size 16: nothing would train"):
        build_pairs(clips_config(root, "data.repeats=3", "train.batch_size=16"))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda root: None, "no such folder; data.root needs train/ and test/"),
        (lambda root: root.mkdir(), "train: no such folder; data.root needs train/ and test/"),
        (lambda root: (root / "train").mkdir(parents=True), "train: no clip in it"),
        (
            lambda root: write_frame_folder(root / "training" / "a"),
            "train: no such folder; .* holds 1 folder",
        ),
    ],
)
def test_missing_and_empty(tmp_path, make, expected):
    make(tmp_path / "data")
    with pytest.raises(UserError, match=expected):
        build_pairs(clips_config(tmp_path / "data"))


def test_empty_test_split_stops_before_training(tmp_path, capsys):
    root = write_clips(tmp_path / "data")
    for clip in (root / "test").iterdir():
        clip.unlink()
    run = tmp_path / "run"
    assert call(train, *tiny(run, "data.kind=clips", f"data.root={root}")) == 2
    assert f"{root / 'test'}: no clip in it" in error_line(capsys, "train.py")
    assert not run.exists()


def test_too_many_unreadable_clips_are_named(tmp_path):
    write_clip(tmp_path / "train" / "good.mp4")
    (tmp_path / "train" / "text.mp4").write_text("not a video")
    truncate(write_clip(tmp_path / "train" / "torn.mp4"), 0.3)
    with pytest.raises(UserError) as caught:
        preflight(build_source(clips_config(tmp_path).data, "train"))
    message = str(caught.value)
    assert "2 of 3 clips cannot be read, more than 1%" in message
    assert "text.mp4: not a video: the file holds text" in message
    assert "torn.mp4: not a video" in message
    assert "good.mp4" not in message
    assert "\n" not in message


def test_one_percent_may_be_unreadable_but_none_of_the_test_split(tmp_path):
    for index in range(99):
        write_frame_folder(tmp_path / "train" / f"{index}", 1 + (index == 0), (16, 16))
    (tmp_path / "train" / "text.mp4").write_text("not a video")
    clips = build_source(clips_config(tmp_path).data, "train")
    report = preflight(clips)
    assert "100 clips" in report
    assert "1 clip cannot be read" in report
    assert "text.mp4: not a video" in report
    assert "98 clips of a single frame, left out of training: 1, 2" in report
    with pytest.raises(UserError, match="1 of 100 clips cannot be read, more than 0%"):
        preflight(clips, max_unreadable=0)


def pack(root: Path) -> Path:
    """Pack the clips with `python -m datasets.prepare --min-frames 1`."""
    output = root.with_name("packed")
    arguments = ["--input", root, "--output", output, "--image-size", "32", "--min-frames", 1]
    argv = [*map(str, arguments), "--workers", "1"]
    assert run_entry_point(prepare.main, prepare.build_parser(), argv) == 0
    return output


@pytest.mark.parametrize("is_packed", [False, True])
def test_nothing_but_single_frames_is_refused(tmp_path, is_packed):
    for split in ("train", "test"):
        for name in "ab":
            write_frame_folder(tmp_path / "clips" / split / name, 1, (32, 32))
    root = pack(tmp_path / "clips") if is_packed else tmp_path / "clips"
    clips = build_source(clips_config(root).data, "train")
    message = f"{root / 'train'}: no clip has more than one frame, so source and driving frame"
    with pytest.raises(UserError, match=message) as caught:
        preflight(clips)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_packed", [False, True])
def test_single_frames_are_not_drawn(tmp_path, is_packed):
    """The id b has no other clip and is left out; c has another one."""
    for name, count in {"a#1": 3, "b#1": 1, "c#1": 1, "c#2": 2, "d#1": 2}.items():
        write_frame_folder(tmp_path / "clips" / "train" / name, count, (32, 32))
    write_frame_folder(tmp_path / "clips" / "test" / "x#1", 2, (32, 32))
    root = pack(tmp_path / "clips") if is_packed else tmp_path / "clips"
    config = clips_config(root, "data.id_sampling=true", "data.repeats=3", "train.batch_size=4")
    pairs = build_pairs(config)
    assert len(pairs) == 12
    assert "2 clips of a single frame, left out of training: b#1, c#1" in (preflight(pairs.clips))
    leave_out_single_frames(pairs, config)
    names = [[pairs.clips.clips[i].name for i in group] for group in pairs.identities]
    assert names == [["a#1"], ["c#2"], ["d#1"]]
    assert len(pairs) == 9
    config = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 10})})
    with pytest.raises(UserError, match="3 ids x 3 repeats, batch size 10: nothing would train"):
        leave_out_single_frames(pairs, config)


def test_training_leaves_single_frames_out(tmp_path, capsys):
    """Without the single frames there are too few clips for a batch."""
    root = write_clips(tmp_path / "data")
    for name in "abc":
        write_frame_folder(root / "train" / name, 1, (32, 32))
    overrides = ("data.kind=clips", f"data.root={root}", "data.repeats=1", "train.batch_size=6")
    assert call(train, *tiny(tmp_path / "run", *overrides)) == 2
    said = capsys.readouterr()
    assert "3 clips of a single frame, left out of training: a, b, c" in said.out
    assert "4 clips x 1 repeats, batch size 6: nothing would train" in said.err


def test_facts_tell_copies_of_the_data_apart(tmp_path):
    """Those of the first clips do not depend on the others."""
    for copy in "ab":
        for name in ("first", "second"):
            write_frame_folder(tmp_path / copy / "train" / name, 2)
    facts = []
    for copy in "ab":
        clips = build_source(clips_config(tmp_path / copy).data, "train")
        facts.append(clip_facts(clips))
    assert facts[0] == facts[1]
    assert facts[0]["number of clips"] == 2
    (tmp_path / "b" / "train" / "second" / "2.png").write_bytes(b"one more")
    changed = clip_facts(clips)
    assert {name for name in changed if changed[name] != facts[0][name]} == {"checksum of the data"}
    clips.clips = clips.clips[:1]
    before = clip_facts(clips)
    (tmp_path / "b" / "train" / "second" / "3.png").write_bytes(b"one more")
    assert clip_facts(clips) == before


def test_a_clip_that_vanishes_before_the_start(tmp_path):
    write_clip(tmp_path / "train" / "a.mp4", 2, (32, 32))
    clips = build_source(clips_config(tmp_path).data, "train")
    (tmp_path / "train" / "a.mp4").unlink()
    with pytest.raises(UserError, match=r"train/a\.mp4: No such file or directory"):
        clip_facts(clips)
