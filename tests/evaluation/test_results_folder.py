"""A folder of results: a second run replaces the first as a whole, and touches nothing else."""

import pytest

from errors import UserError
from evaluation.report import MeasuredClip, write_report
from evaluation.results_folder import clip_path, replacing_results


def run(output, names, content="x", *, saves_frames=False, fails=False):
    """Write results as an evaluation does."""
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


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_clips_of_the_earlier_run_go(tmp_path):
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


def test_what_a_killed_run_left_goes(tmp_path):
    write(tmp_path / ".unfinished" / "clips" / "old.mp4", "old")
    run(tmp_path, ["a"])
    assert "old" not in contents(tmp_path).values()
    assert not (tmp_path / ".unfinished").exists()


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
