"""Untrusted prepared folders, which a run is asked to continue."""

import csv
import json
import os

import pytest

from datasets.prepare import folder as prepare_folder
from tests.helpers.clip_files import run
from tests.helpers.media import write_clip
from tests.helpers.runs import error_line

PROG = "python -m datasets.prepare"


@pytest.fixture
def clips(tmp_path):
    for name in ("train/id1#a.mp4", "train/id1#b.mp4", "test/id2#c.mp4"):
        write_clip(tmp_path / "clips" / name, 3)
    return tmp_path / "clips"


@pytest.fixture
def prepared(clips, tmp_path):
    """Prepare a folder of clips, then add a new clip to the input."""
    assert run(clips, tmp_path / "out") == 0
    write_clip(clips / "train" / "id3#new.mp4", 3)
    return tmp_path / "out"


@pytest.mark.parametrize("shard", ["/absolute", "../../victim", "../train/../../victim"])
def test_a_shard_somewhere_else_is_not_cut(clips, prepared, tmp_path, capsys, shard):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    pack = prepared / "train"
    (pack / "pack.json").write_text(json.dumps({"format": 1, "image_size": [48, 64]}))
    lines = [json.loads(line) for line in (pack / "clips.jsonl").read_text().splitlines()]
    lines[-1] |= {"shard": str(victim) if shard == "/absolute" else shard, "end": 0}
    (pack / "clips.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    capsys.readouterr()
    assert run(clips, prepared) == 2
    assert "line 2: its shard has no name such as 00000.tar" in error_line(capsys, PROG)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", [".lock", "train/00000.tar", "train/frames.bin", "train"])
def test_links_are_not_written_through(clips, prepared, tmp_path, capsys, name):
    outside = tmp_path / "outside"
    if name == ".lock":
        outside.write_text("mine")
        (prepared / name).unlink(missing_ok=True)
    else:
        (prepared / name).rename(outside)
    (prepared / name).symlink_to(outside)
    before = {path: path.read_bytes() for path in (outside, *outside.glob("*")) if path.is_file()}
    capsys.readouterr()
    assert run(clips, prepared) == 2
    assert f"{prepared / name}: is a link, and nothing is written" in error_line(capsys, PROG)
    after = {path: path.read_bytes() for path in (outside, *outside.glob("*")) if path.is_file()}
    assert after == before


def test_a_pipe_in_place_of_the_lock_is_refused_without_waiting(clips, prepared, capsys):
    (prepared / ".lock").unlink(missing_ok=True)
    os.mkfifo(prepared / ".lock")
    capsys.readouterr()
    assert run(clips, prepared) == 2
    assert ".lock: is not a plain file" in error_line(capsys, PROG)


def test_a_link_among_unfinished_clips_is_deleted_without_its_target(clips, prepared, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("mine")
    (prepared / "train" / ".1-0.tmp").symlink_to(tmp_path / "outside")
    assert run(clips, prepared) == 0
    assert (tmp_path / "outside" / "file").read_text() == "mine"
    assert not (prepared / "train" / ".1-0.tmp").is_symlink()


@pytest.mark.parametrize("form", ["packed", "frames"])
def test_temporary_names_of_clips_are_unpredictable(clips, tmp_path, monkeypatch, form):
    """A link that appears there after the run began would be written through."""
    monkeypatch.setattr(prepare_folder, "_remove_leftovers", lambda folder: None)
    victim, folder = tmp_path / "victim", tmp_path / "out" / "train"
    victim.write_text("mine")
    folder.mkdir(parents=True)
    (tmp_path / "out" / "prepared.json").write_text("{}")
    for number in range(4):
        (folder / f".{os.getpid()}-{number}.tmp").symlink_to(victim)
    assert run(clips, tmp_path / "out", "--format", form) == 0
    assert victim.read_text() == "mine"


def test_names_are_no_formulas_in_the_report(clips, tmp_path):
    (clips / "train" / "=1+1.mp4").write_text("no clip")
    for _ in range(2):  # the second run reads the report
        assert run(clips, tmp_path / "out") == 0
        with (tmp_path / "out" / "report.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert row["clip"] == "'=1+1"
        assert row["source"].endswith("=1+1.mp4")


@pytest.mark.parametrize("name", ["prepared.json", "splits.json"])
def test_a_file_of_brackets(clips, tmp_path, capsys, name):
    for split in ("train", "test"):
        for path in (clips / split).iterdir():
            path.rename(clips / path.name)
        (clips / split).rmdir()
    assert run(clips, tmp_path / "out") == 0
    (tmp_path / "out" / name).write_text("[" * 200_000)
    capsys.readouterr()
    assert run(clips, tmp_path / "out") == 2
    assert f"{name}: damaged" in error_line(capsys, PROG)


def test_settings_do_not_control_the_terminal(clips, prepared, capsys):
    noted = json.loads((prepared / "prepared.json").read_text())
    (prepared / "prepared.json").write_text(json.dumps(noted | {"quality": "\x1b[2J\n1"}))
    capsys.readouterr()
    assert run(clips, prepared) == 2
    assert r"was prepared with --quality \x1b[2J\n1, not --quality 95" in error_line(capsys, PROG)
