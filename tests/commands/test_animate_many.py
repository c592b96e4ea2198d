"""animate.py: many animations in one run."""

import csv
import shutil

import pytest
import torch
from PIL import Image

import animate
from animation.animator import Animator
from animation.results_table import Results
from media.video import open_clip
from tests.helpers.media import leave_behind, numbered_frame, write_clip, write_frame_folder
from tests.helpers.runs import call, error_line, step_file
from tests.media.test_deinterlace import KINDS, woven, write_interlaced
from tests.media.test_frame_conversion import write_call

SIDE = 32


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working folder, with sources/ (a.png, b.jpg) and clips/ (one.mp4, two/)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sources").mkdir()
    for number, name in enumerate(("a.png", "b.jpg")):
        Image.fromarray(numbered_frame(number, (SIDE, SIDE))).save(tmp_path / "sources" / name)
    write_clip(tmp_path / "clips" / "one.mp4", 4, (SIDE, SIDE))
    write_frame_folder(tmp_path / "clips" / "two", 3, (SIDE, SIDE))
    return tmp_path


@pytest.fixture
def run(tiny_run):
    def run(*arguments):
        return call(animate, "--checkpoint", step_file(tiny_run, 8), *arguments)

    return run


def rows(folder="out"):
    with open(f"{folder}/results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_source_with_every_clip(place, run, capsys):
    assert run("--source", "sources", "--driving", "clips", "--output", "out") == 0
    names = ["a--one.mp4", "a--two.mp4", "b--one.mp4", "b--two.mp4"]
    assert sorted(path.name for path in (place / "out").iterdir()) == [*names, "results.csv"]
    assert [open_clip(place / "out" / name).num_frames for name in names] == [4, 3, 4, 3]
    found = rows()
    assert [row["output"] for row in found] == [f"out/{name}" for name in names]
    assert {row["status"] for row in found} == {"done"}
    assert [row["num_frames"] for row in found] == ["4", "3", "4", "3"]
    distances = [float(row["reference_distance"]) for row in found]
    assert distances[0] < 0.05  # the source is the clip's first frame before encoding
    assert distances[2] > distances[0]
    assert "out/results.csv: 4 animations, 0 failed" in capsys.readouterr().out


def test_remarks_on_clips_are_printed_once(place, run, capfd, caplog):
    """They come before the first frame if they are known then, otherwise after the last one."""
    frames = [woven(number) for number in range(4)]
    write_interlaced(place / "old.mp4", frames, *KINDS["h264.mp4"])
    write_call(place / "call.webm")
    (place / "clips" / "two" / "a.psd").touch()
    for driving in ("call.webm", "clips/two"):
        inputs = ("--source", "sources/a.png", "--driving", driving, "--output", "a.mp4")
        assert run(*inputs, "--background", "old.mp4") == 0
    said = capfd.readouterr().out.splitlines()
    for line, num_clips in (
        ("call.webm: frames of several sizes; all are fitted into that of the first", 1),
        ("old.mp4: interlaced; made whole (bwdif)", 2),
        ("clips/two: left out 1 .psd file", 1),
    ):
        assert said.count(line) == num_clips
    assert caplog.messages == []


def test_a_folder_of_frames_is_one_clip(place, run):
    assert run("--source", "sources", "--driving", "clips/two", "--output", "out") == 0
    assert len(rows()) == 2
    output = ("--output", "single.mp4")
    assert run("--source", "sources/a.png", "--driving", "clips/two", *output) == 0
    assert open_clip("single.mp4").num_frames == 3


def test_the_model_is_loaded_once(place, run, monkeypatch):
    loaded = []
    original = Animator.load.__func__

    def counting(cls, *arguments):
        loaded.append(arguments)
        return original(cls, *arguments)

    monkeypatch.setattr(Animator, "load", classmethod(counting))
    assert run("--source", "sources", "--driving", "clips", "--output", "out") == 0
    assert len(loaded) == 1


def test_one_failure_does_not_stop_the_rest(place, run, capsys):
    (place / "sources" / "broken.png").write_text("no image")
    assert run("--source", "sources", "--driving", "clips/one.mp4", "--output", "out") == 1
    found = {row["source"]: row for row in rows()}
    assert {name: row["status"] for name, row in found.items()} == {
        "sources/a.png": "done",
        "sources/b.jpg": "done",
        "sources/broken.png": "failed",
    }
    assert "broken.png: not an image: the file holds text" in found["sources/broken.png"]["error"]
    assert "broken.png: not an image" in error_line(capsys, "animate.py")
    assert not (place / "out" / "broken--one.mp4").exists()


def test_leftovers_are_no_inputs(place, run, caplog):
    """Empty folders are no inputs either; a remark counts them."""
    for folder in ("sources", "clips", "clips/two"):
        leave_behind(place / folder)
    (place / "sources" / "._a.png").write_bytes(b"attributes")
    (place / "clips" / "empty").mkdir()
    assert run("--source", "sources", "--driving", "clips", "--output", "out") == 0
    assert len(rows()) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "--driving clips: left out 1 empty folder"
    ]
    (place / "clips" / "two" / "empty").mkdir()  # still a clip, not a folder of clips
    output = ("--output", "single.mp4")
    assert run("--source", "sources/a.png", "--driving", "clips/two", *output) == 0


def test_leftovers_do_not_keep_a_folder_of_frames(place, run):
    inputs = ("--source", "sources/a.png", "--driving", "clips/two", "--output", "frames")
    assert run(*inputs) == 0
    leave_behind(place / "frames")
    assert run(*inputs) == 0
    assert len(list((place / "frames").glob("*.png"))) == 3


@pytest.fixture
def odd_job(monkeypatch):
    """A function that makes the job of b.jpg raise an unexpected error."""

    def break_it(error):
        original = animate.run_job

        def run_job(animator, job, *arguments):
            if job.source.endswith("b.jpg"):
                raise error
            return original(animator, job, *arguments)

        monkeypatch.setattr(animate, "run_job", run_job)

    return break_it


@pytest.mark.parametrize("error", [AssertionError(), IndexError("list index\nout of range")])
def test_any_failure_is_a_row(place, run, capsys, odd_job, error):
    odd_job(error)
    assert run("--source", "sources", "--driving", "clips", "--output", "out") == 1
    assert [row["status"] for row in rows()] == ["done", "done", "failed", "failed"]
    reason = {AssertionError: "AssertionError", IndexError: "IndexError: list index out of range"}
    line = f"clips/one.mp4: {reason[type(error)]}"
    assert rows()[2]["error"] == line
    output = capsys.readouterr()
    assert output.err.splitlines()[0] == f"animate.py: error: {line}"
    assert len(output.err.splitlines()) == 2
    assert "4 animations, 2 failed" in output.out


def test_debug_prints_tracebacks_and_continues(place, run, capsys, odd_job):
    odd_job(ZeroDivisionError("by zero"))
    (place / "sources" / "a.png").write_text("no image")
    Image.fromarray(numbered_frame(0, (SIDE, SIDE))).save(place / "sources" / "c.png")
    inputs = ("--source", "sources", "--driving", "clips/one.mp4", "--output", "out")
    assert run(*inputs, "--debug") == 1
    assert [row["status"] for row in rows()] == ["failed", "failed", "done"]
    shown = capsys.readouterr().err
    assert shown.count("Traceback (most recent call last)") >= 2
    assert "raise error" in shown


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("out of memory")])
def test_no_memory_ends_the_run(place, run, odd_job, error):
    odd_job(error)
    inputs = ("--source", "sources", "--driving", "clips/one.mp4", "--output", "out")
    with pytest.raises(type(error)):
        run(*inputs)


def test_skip_existing_keeps_files_and_their_rows(place, run):
    inputs = ("--source", "sources", "--driving", "clips/one.mp4", "--output", "out")
    assert run(*inputs) == 0
    before = rows()
    (place / "out" / "b--one.mp4").unlink()
    kept = (place / "out" / "a--one.mp4").stat().st_mtime_ns
    assert run(*inputs, "--skip-existing") == 0
    assert (place / "out" / "a--one.mp4").stat().st_mtime_ns == kept
    after = rows()
    assert after[0] == before[0]
    assert after[1]["status"] == "done"
    assert (place / "out" / "b--one.mp4").exists()


def test_skipped_without_an_earlier_table(place, run):
    inputs = ("--source", "sources", "--driving", "clips/one.mp4", "--output", "out")
    assert run(*inputs) == 0
    (place / "out" / "results.csv").unlink()
    assert run(*inputs, "--skip-existing") == 0
    assert [row["status"] for row in rows()] == ["skipped", "skipped"]


@pytest.mark.parametrize("has_table", [False, True])
def test_a_file_that_no_run_wrote_is_not_replaced(place, run, capsys, has_table):
    inputs = ("--source", "sources", "--driving", "clips/one.mp4")
    if has_table:
        assert run(*inputs, "--output", "out") == 0
        (place / "sources" / "a.png").rename(place / "sources" / "c.png")
    own = place / "out" / ("c--one.mp4" if has_table else "b--one.mp4")
    own.parent.mkdir(exist_ok=True)
    own.write_text("mine")
    capsys.readouterr()
    assert run(*inputs, "--output", "out") == 2
    assert f"out/{own.name}: is there, and out/results.csv does not say" in (
        error_line(capsys, "animate.py")
    )
    assert run(*inputs, "--output", "out", "--skip-existing") == 0
    assert run(*inputs, "--output", "out") == 2  # its row says that it was skipped
    assert own.read_text() == "mine"
    own.unlink()
    for output in (place / "out", "./out"):  # written otherwise, and again
        assert run(*inputs, "--output", output) == 0


def test_a_failed_job_owns_the_file_only_if_one_succeeded_before(place, run, capsys):
    inputs = ("--source", "sources", "--driving", "clips/one.mp4", "--output", "out")
    broken, picture = place / "sources" / "a.png", (place / "sources" / "a.png").read_bytes()
    broken.write_bytes(b"no picture")
    assert run(*inputs) == 1
    own = place / "out" / "a--one.mp4"
    own.write_text("mine")
    broken.write_bytes(picture)
    capsys.readouterr()
    assert run(*inputs) == 2
    assert f"out/{own.name}: is there, and" in error_line(capsys, "animate.py")
    assert own.read_text() == "mine"
    own.unlink()
    assert run(*inputs) == 0
    result = own.read_bytes()
    broken.write_bytes(b"no picture")
    assert run(*inputs) == 1
    assert [row["earlier_result"] for row in rows()] == ["kept", ""]
    assert own.read_bytes() == result
    assert run(*inputs, "--skip-existing") == 0
    broken.write_bytes(picture)
    assert run(*inputs) == 0  # it is ours, whatever happened in between
    assert [row["status"] for row in rows()] == ["done", "done"]


def test_rows_of_an_earlier_run_survive_an_interruption(place, run, monkeypatch):
    """Ctrl-C comes during the first job that is still to be done."""
    inputs = ("--source", "sources", "--driving", "clips/one.mp4", "--output", "out")
    assert run(*inputs) == 0
    before = rows()
    (place / "out" / "a--one.mp4").unlink()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(animate, "run_job", interrupted)
        assert run(*inputs, "--skip-existing") == 130
    assert rows() == before


def test_the_row_of_a_failed_job_is_replaced_if_its_output_exists(place, run):
    inputs = ("--source", "sources", "--driving", "clips/one.mp4", "--output", "out")
    assert run(*inputs) == 0
    picture = (place / "sources" / "a.png").read_bytes()
    (place / "sources" / "a.png").write_text("no image")
    assert run(*inputs) == 1
    assert rows()[0]["status"] == "failed"
    (place / "sources" / "a.png").write_bytes(picture)
    assert run(*inputs, "--skip-existing") == 0
    assert rows()[0]["status"] == "skipped"


def test_backgrounds_of_pairs(place, run):
    """A keyword is a keyword even if a file has this name; names are relative to the table."""
    (place / "tables" / "source").mkdir(parents=True)
    Image.fromarray(numbered_frame(9, (SIDE, SIDE))).save(place / "tables" / "third.png")
    shutil.copy(place / "tables" / "third.png", place / "tables" / "source" / "0.png")
    table = place / "tables" / "pairs.csv"
    pair = "../sources/a.png,../clips/two"
    backgrounds = ["source", "./source", "third.png", ""]
    lines = [f"{pair},{name},{number}.gif" for number, name in enumerate(backgrounds)]
    table.write_text("\n".join(["source,driving,background,output", *lines]))
    assert run("--pairs", table, "--output", "out", "--background", "#0000ff") == 0
    found = [row["background"] for row in rows()]
    assert found == ["source", f"{place}/tables/./source", f"{place}/tables/third.png", "#0000ff"]
    frames = [open_clip(f"out/{number}.gif").read([0]) for number in range(4)]
    assert (frames[0] != frames[1]).any()
    assert abs(frames[1].astype(int) - frames[2]).max() <= 8  # the same picture


def test_pairs(place, run):
    """Names of inputs are relative to the table's folder, outputs to --output."""
    table = place / "tables" / "pairs.csv"
    table.parent.mkdir()
    shutil.copy(place / "sources" / "a.png", table.parent / "near.png")
    table.write_text(
        "source,driving,background,output\n"
        "near.png,../clips/one.mp4,,first.gif\n"
        "../sources/b.jpg,../clips/two,#00ff00,\n"
    )
    assert run("--pairs", table, "--output", "out", "--format", "webm") == 0
    assert open_clip("out/first.gif").num_frames == 4
    assert open_clip("out/b--two.webm").num_frames == 3
    assert [row["background"] for row in rows()] == ["", "#00ff00"]


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("../a.gif", "'..' cannot be a name"),
        ("sub/../../a.gif", "'..' cannot be a name"),
        ("/tmp/a.gif", "'/tmp/a.gif' is absolute"),
        (".hidden.gif", "'.hidden.gif' cannot be a name: it begins with a dot"),
        ("link/a.gif", "out/link: is a link"),
    ],
)
def test_pairs_stay_in_their_folder(place, run, capsys, output, problem):
    outside = place / "outside"
    outside.mkdir()
    (place / "out").mkdir()
    (place / "out" / "link").symlink_to(outside)
    (place / "pairs.csv").write_text(
        f"source,driving,output\nsources/a.png,clips/one.mp4,{output}\n"
    )
    assert run("--pairs", "pairs.csv", "--output", "out") == 2
    line = error_line(capsys, "animate.py")
    assert "--pairs pairs.csv: line 2: its output would not be in --output out: " in line
    assert line.endswith("; name a place in it, or add --allow-outside")
    assert problem in line
    assert [path.name for path in (place / "out").iterdir()] == ["link"]
    assert not list(outside.iterdir())


def test_pairs_that_may_leave_their_folder(place, run):
    (place / "outside").mkdir()
    (place / "pairs.csv").write_text(
        "source,driving,output\n"
        "sources/a.png,clips/one.mp4,../outside/a.gif\n"
        f"{place}/sources/b.jpg,clips/one.mp4,{place}/outside/b.gif\n"
        "sources/a.png,clips/one.mp4,sub/a.gif\n"
    )
    assert run("--pairs", "pairs.csv", "--output", "out", "--allow-outside") == 0
    assert sorted(path.name for path in (place / "outside").iterdir()) == ["a.gif", "b.gif"]
    assert open_clip("out/sub/a.gif").num_frames == 4


def test_names_are_no_formulas(place, run):
    """File names that spreadsheets would run are escaped in the table; a later run reads them."""
    (place / "sources" / "a.png").rename(place / "=1+1.png")
    inputs = ("--source", "=1+1.png", "--driving", "clips", "--output", "=out", "--format", "gif")
    assert run(*inputs) == 0
    first, second = rows("=out")
    assert first["source"] == second["source"] == "'=1+1.png"
    assert first["output"] == "'=out/=1+1--one.gif"
    assert first["num_frames"] == "4"
    (place / "=out" / "=1+1--one.gif").unlink()
    assert run(*inputs, "--skip-existing") == 0
    after = rows("=out")
    assert len(after) == 2
    assert after[1] == second


def test_folders_of_frames(place, run):
    inputs = ("--source", "sources", "--driving", "clips/two", "--output", "out")
    assert run(*inputs, "--format", "png") == 0
    assert len(list((place / "out" / "a--two").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--source sources --driving clips", "--output: many animations go to a folder; give its"),
        ("--source sources --driving clips --output o.mp4", "--output: many animations go to a"),
        ("--source a.png --driving clips/one.mp4 --output o.mp4 --format gif", "--format is for"),
        ("--skip-existing", "--skip-existing is for many animations: folders, or --pairs"),
        ("--pairs none.csv --output out", "--pairs none.csv: No such file or directory"),
        ("--pairs head.csv --output out", "--pairs head.csv: there is no line below the names"),
        ("--pairs names.csv --output out", "--pairs names.csv: its columns are source, drive; the"),
        ("--pairs hole.csv --output out", "--pairs hole.csv: line 3 has no driving"),
        ("--pairs nul.csv --output out", "--pairs nul.csv: line 2 has a name with a NUL character"),
        ("--allow-outside", "--allow-outside is for --pairs; leave it out"),
        ("--pairs twice.csv --output out", "out/a--one.mp4: 2 animations would have this name"),
        ("--pairs twice.csv --source a.png --driving b", "--pairs names sources and driving clips"),
        ("--source empty --driving clips --output out", "--source empty: no images (png, jpg) in"),
        (
            "--source sources --driving mixed --output out",
            "--driving mixed: holds images (0.png)",
        ),
        (
            "--source sources --driving clips --output clips",
            "--output clips: is the folder of --",
        ),
        ("--pairs self.csv --output .", "--output one.mp4 would replace --driving one.mp4; choose"),
        (
            "--pairs masks.csv --output out --save-masks",
            "--output out/a-masks.mp4 would replace",
        ),
        ("--pairs long.csv --output out", "too long a name; give it a shorter one with --pairs"),
        (
            "--source sources --driving clips --output foreign",
            "foreign/results.csv: no earlier",
        ),
    ],
)
def test_bad_input(place, run, capsys, arguments, expected):
    (place / "empty").mkdir()
    (place / "foreign").mkdir()
    (place / "foreign" / "results.csv").write_bytes(b"caf\xe9;1\n")
    write_frame_folder(place / "mixed", 1, (SIDE, SIDE))
    (place / "mixed" / "frame0.png").rename(place / "mixed" / "0.png")
    for name in ("one.mp4", "mixed/one.mp4"):
        shutil.copy(place / "clips" / "one.mp4", place / name)
    tables = {
        "head": "source,driving\n",
        "names": "source,drive\na,b\n",
        "hole": "source,driving\na.png,one.mp4\na.png,\n",
        "nul": "source,driving\na.png\0,one.mp4\n",
        "self": "source,driving,output\nsources/a.png,clips/one.mp4,one.mp4\n"
        "sources/a.png,one.mp4,b.mp4\n",
        "masks": "source,driving,output\nsources/a.png,clips/one.mp4,a.mp4\n"
        "sources/a.png,clips/one.mp4,a-masks.mp4\n",
        "long": f"source,driving,output\nsources/a.png,clips/one.mp4,{'n' * 250}.mp4\n",
        "twice": "source,driving\na.png,clips/one.mp4\na.png,clips/one.mp4\n",
    }
    for name, text in tables.items():
        (place / f"{name}.csv").write_text(text)
    assert run(*arguments.split()) == 2
    assert expected in error_line(capsys, "animate.py")
    assert not (place / "out").exists()


def test_rows_have_the_order_of_the_jobs_whatever_comes_first(place):
    """Rows of earlier runs come first."""
    results = Results(place / "out")
    results.expect(["z"])
    results.add({"output": "z", "status": "done"})
    results = Results(place / "out")
    results.expect(["c", "z", "a", "b"])
    for output in ("b", "c", "z"):
        results.add({"output": output, "status": "failed"})
    assert [row["output"] for row in rows()] == ["z", "c", "b"]
    assert {row["status"] for row in rows()} == {"failed"}
