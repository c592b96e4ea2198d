"""The results folder: a second run replaces the results of the first and touches nothing else."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.file_lock import locked
from evaluation import results_folder
from evaluation.report import MeasuredClip, write_report
from evaluation.results_folder import clip_path, replacing_results
from tests.helpers.runs import REPOSITORY


def run(output, names, content="x", *, saves_frames=False, fails=False, meanwhile=None):
    """Write results as an evaluation does; `meanwhile` is a file that somebody else adds."""
    with replacing_results(output, names, saves_frames=saves_frames) as folder:
        for name in names:
            write(folder / clip_path(name), content)
            if saves_frames:
                for kind in ("driving", "prediction"):
                    write(folder / "frames" / kind / name / "00000.png", content)
        if fails:
            raise KeyboardInterrupt
        clips = [MeasuredClip(name, 1, {}) for name in names]
        write_report(folder, {"content": content, "saved_frames": saves_frames}, {}, clips)
        write(folder / "index.html", content)
        if meanwhile is not None:
            write(meanwhile, "mine")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_clips_of_the_earlier_run_are_removed(tmp_path):
    run(tmp_path, ["a", "b"], "1", saves_frames=True)
    run(tmp_path, ["b", "c"], "2")
    found = contents(tmp_path)
    assert found.keys() == {
        *("metrics.json", "metrics.csv", "frames.csv", "index.html"),
        *("clips/b.mp4", "clips/c.mp4"),
    }
    assert {found["index.html"], found["clips/b.mp4"], found["clips/c.mp4"]} == {"2"}
    assert not (tmp_path / "frames").exists()


def test_other_files_stay(tmp_path):
    run(tmp_path, ["a"], saves_frames=True)
    mine = ("notes.txt", "clips/mine.mp4", "frames/prediction/a/notes.txt", "frames/other/0.png")
    for name in mine:
        write(tmp_path / name, "mine")
    run(tmp_path, ["b"])
    found = contents(tmp_path)
    assert {name for name in found if found[name] == "mine"} == set(mine)
    assert "clips/a.mp4" not in found
    assert "frames/prediction/a/00000.png" not in found


def test_an_interrupted_run_leaves_the_earlier_results(tmp_path):
    run(tmp_path, ["a"], "1")
    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ["a", "b"], "2", fails=True)
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {
        *("clips", "metrics.json", "metrics.csv", "frames.csv", "index.html"),
    }


def test_a_first_run_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", ["a"], fails=True)
    assert not (tmp_path / "out").exists()


def unfinished_of(name, output):
    """Write a file into the unfinished folder of a run."""
    path = output / f".unfinished-{name}" / "results" / "clips" / "old.mp4"
    write(path, "old")
    return path


def test_unfinished_folders_of_killed_runs_are_removed(tmp_path):
    """Also one of an earlier version, named by a process id, even if that is now ours again."""
    left = [unfinished_of(name, tmp_path) for name in ("0123456789abcdef", f"{os.getpid()}-abc")]
    (tmp_path / ".unfinished-0123456789abcdef.lock").touch()
    (tmp_path / ".unfinished-fedcba9876543210.lock").touch()
    run(tmp_path, ["a"])
    assert not [path for path in left if path.exists()]
    assert not list(tmp_path.glob(".unfinished*"))


@pytest.mark.parametrize("name", ["chapter.txt", "results.txt", "results/chapter.txt"])
def test_a_folder_of_somebody_else_with_such_a_name_stays(tmp_path, name):
    own = tmp_path / ".unfinished-thesis" / name
    write(own, "mine")
    lock = tmp_path / ".unfinished-work.lock"
    lock.touch()
    run(tmp_path, ["a"])
    assert own.read_text() == "mine"
    assert lock.exists()


def test_unfinished_folders_of_running_evaluations_stay(tmp_path):
    """The lock tells, so this also holds for processes in another container."""
    busy = unfinished_of("0123456789abcdef", tmp_path)
    with locked(tmp_path / ".unfinished-0123456789abcdef.lock"):
        run(tmp_path, ["a"])
        assert busy.read_text() == "old"
    run(tmp_path, ["a"])
    assert not busy.exists()


@pytest.mark.parametrize("name", ["index.html", "clips/b.mp4", "frames/driving/b/mine.txt"])
def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path, name):
    """Both the file and the new results are kept."""
    with pytest.raises(
        UserError, match=r"which appeared while this run was at work; its results are"
    ):
        run(tmp_path, ["b"], "2", saves_frames=True, meanwhile=tmp_path / name)
    found = contents(tmp_path)
    assert found.pop(name) == "mine"
    assert all(path.startswith(".unfinished-") for path in found)
    assert sum(path.endswith("results/clips/b.mp4") for path in found) == 1


def test_two_runs_at_once(tmp_path):
    """The run that ends last replaces the results of the other, though it began first."""
    with replacing_results(tmp_path, ["a"], saves_frames=False) as folder:
        write(folder / clip_path("a"), "first")
        write_report(folder, {"saved_frames": False}, {}, [MeasuredClip("a", 1, {})])
        code = (
            "import sys; from pathlib import Path;"
            "from tests.evaluation.test_results_folder import run;"
            "run(Path(sys.argv[1]), ['b'])"
        )
        subprocess.run([sys.executable, "-c", code, tmp_path], check=True, cwd=REPOSITORY)
        assert (tmp_path / clip_path("b")).exists()
    found = contents(tmp_path)
    assert found.keys() == {"metrics.json", "metrics.csv", "frames.csv", "clips/a.mp4"}


@pytest.fixture
def refuse(monkeypatch):
    """A function that makes the system fail to replace one file."""
    replace = os.replace

    def refuse(refused):
        def replace_others(source, target):
            if target == refused:
                raise OSError(errno.EIO, "Input/output error")
            replace(source, target)

        monkeypatch.setattr(os, "replace", replace_others)

    return refuse


@pytest.mark.parametrize("has_earlier", [True, False])
def test_interrupted_in_the_exchange(tmp_path, refuse, monkeypatch, has_earlier):
    """The exchange fails at clip c. No result is lost that was not replaced, and the next run
    cleans up, for which it must know the clips of both runs.
    """
    if has_earlier:
        run(tmp_path, ["a", "b", "old"], "1", saves_frames=True)
    refuse(tmp_path / "clips" / "c.mp4")
    with pytest.raises(UserError, match="cannot be written"):
        run(tmp_path, ["b", "c"], "2")
    monkeypatch.undo()
    found = contents(tmp_path)
    (rest,) = (name for name in found if name.endswith("results/clips/c.mp4"))
    assert rest.startswith(".unfinished-")
    assert (found[rest], found["clips/b.mp4"]) == ("2", "2")
    if has_earlier:
        assert found["clips/a.mp4"] == found["clips/old.mp4"] == "1"
        assert found["frames/driving/b/00000.png"] == "1"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ["b"], "3", fails=True)
    run(tmp_path, ["a"], "4")
    found = contents(tmp_path)
    assert found.keys() == {
        *("metrics.json", "metrics.csv", "frames.csv", "index.html", "clips/a.mp4"),
    }
    assert found["clips/a.mp4"] == "4"
    assert not list(tmp_path.glob(".unfinished*"))


def test_interrupted_before_both_tables_are_there(tmp_path, refuse, monkeypatch):
    """The files of a first run are known as such although no table lists them."""
    refuse(tmp_path / "metrics.json")
    with pytest.raises(UserError, match="cannot be written"):
        run(tmp_path, ["a"], "1")
    assert (tmp_path / "metrics.csv").exists()
    monkeypatch.undo()
    run(tmp_path, ["b"], "2")
    assert set(contents(tmp_path)) == {
        *("metrics.json", "metrics.csv", "frames.csv", "index.html", "clips/b.mp4"),
    }


def test_extra_frames_of_a_longer_earlier_run_are_removed(tmp_path):
    run(tmp_path, ["a"], "1", saves_frames=True)
    write(tmp_path / "frames/driving/a/00001.png", "1")
    run(tmp_path, ["a"], "2", saves_frames=True)
    found = contents(tmp_path)
    assert found["frames/driving/a/00000.png"] == "2"
    assert "frames/driving/a/00001.png" not in found


@pytest.mark.parametrize("name", ["../../../victim", "..", "/victim", ""])
def test_names_that_lead_out_of_the_folder_are_ignored(tmp_path, name):
    output = tmp_path / "one" / "two"
    run(output, ["a"], saves_frames=True)
    for folder in (tmp_path, output.parent, output, output / "frames"):
        write(folder / "victim.mp4", "mine")
        write(folder / "00000.png", "mine")
    (output / "metrics.csv").write_text(f"clip,num_frames\n{name},1\na,1\n")
    run(output, ["b"])
    assert list(contents(tmp_path).values()).count("mine") == 8
    assert not (output / clip_path("a")).exists()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            os.fsdecode(b"caf\xe9"),
            r"'caf\\udce9' cannot be a name: it has bytes that are not",
        ),
        ("../../x", "'../../x' cannot be a name: it begins with a dot"),
        ("a/b", "'a/b' cannot be a name: it has a slash"),
        ("n" * 252, "cannot be a name: it has 252 bytes, more than 251"),
    ],
)
def test_a_name_that_is_not_allowed_is_refused_at_once(tmp_path, name, problem):
    with pytest.raises(UserError, match=rf"^clip .*{problem}.*; rename it$"):
        run(tmp_path / "out", [name])
    assert not (tmp_path / "out").exists()


def test_the_longest_name(tmp_path):
    run(tmp_path / "out", ["n" * 251], saves_frames=True)
    run(tmp_path / "out", ["a"])
    assert sorted(path.name for path in (tmp_path / "out" / "clips").iterdir()) == ["a.mp4"]


@pytest.mark.parametrize("place", ["clips", "frames", "frames/driving", "frames/driving/a"])
def test_links_are_not_written_through(tmp_path, place):
    """A results folder from somebody else may contain a link."""
    output = tmp_path / "out"
    run(output, ["a"], "1", saves_frames=True)
    outside = tmp_path / "outside"
    (output / place).rename(outside)
    (output / place).symlink_to(outside)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=f"out/{place}: is a link, and nothing is written through"):
        run(output, ["a"], "2", saves_frames=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("place", ["clips", "frames/driving", "frames/driving/a"])
def test_files_behind_a_link_are_not_removed(tmp_path, place):
    """Such a link may have replaced a folder of an earlier run after this run began."""
    output = tmp_path / "out"
    run(output, ["a"], "1", saves_frames=True)
    outside = tmp_path / "outside"
    (output / place).rename(outside)
    (output / place).symlink_to(outside)
    before = contents(outside)
    results_folder._remove(output, [Path("clips/a.mp4"), Path("frames/driving/a")], [])
    assert contents(outside) == before


def test_an_unfinished_folder_that_is_a_link_is_left_alone(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    outside = tmp_path / "outside"
    write(outside / "exchange.json", json.dumps([[["mine"], False]]))
    output = tmp_path / "out"
    write(output / "clips" / "mine.mp4", "mine")
    (output / f".unfinished-{ended.pid}-abc").symlink_to(outside)
    run(output, ["a"])
    assert (output / "clips" / "mine.mp4").read_text() == "mine"
    assert (outside / "exchange.json").exists()


@pytest.mark.parametrize("name", ["index.html", "metrics.json", "clips/a.mp4"])
def test_a_file_that_no_run_wrote_is_not_replaced(tmp_path, name):
    write(tmp_path / name, "mine")
    with pytest.raises(UserError, match=f"holds {name}, which no earlier run wrote"):
        run(tmp_path, ["a"])
    assert contents(tmp_path) == {name: "mine"}


def test_folder_that_cannot_be_made(tmp_path):
    write(tmp_path / "file", "mine")
    with pytest.raises(UserError, match="out: cannot be written: not a directory"):
        run(tmp_path / "file" / "out", ["a"])


@pytest.mark.parametrize(
    ("summary", "table"),
    [
        ('{"acc": 1}', ""),
        ('{"acc": 1}', "epoch,acc\n"),
        ('{"acc": 1}', "clip,num_frames\nmine,1\n"),
        ('{"metrics": {}}', "clip,score\nmine,1\n"),
        ("5", "clip,num_frames\n"),
    ],
)
def test_tables_of_another_program_are_not_replaced(tmp_path, summary, table):
    write(tmp_path / "metrics.json", summary)
    write(tmp_path / "metrics.csv", table)
    write(tmp_path / "index.html", "mine")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="which no earlier run wrote; choose another folder"):
        run(tmp_path, ["a"])
    assert contents(tmp_path) == before
