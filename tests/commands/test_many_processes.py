"""reconstruct.py and animate.py in several processes: the results of one, and one end for all."""

import csv
import json
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.media import numbered_frame, write_clip, write_frame_folder
from tests.helpers.processes import finish_together, signal_together, start_together
from tests.helpers.runs import command, finish, step_file, wait_until
from tests.helpers.script_files import FirstAndLast, MeanColours, write_script

SIDE = 32
FLOAT32 = ("--precision", "float32", "--device", "cpu")
TORCH_WARNING = re.compile(r"(\[rank\d+\]:)?\[W|frame #|Exception raised")
LENGTHS = {"a": 7, "b": 2, "c": 9, "d": 4, "e": 3}  # frames of the clips

# A program that runs an entry point, in which `condition` in the function `name` of `module` makes
# the process fail.
FAILING = """
import os, sys, signal, time
import {module} as module
original = module.{name}
def replaced(*arguments, **options):
    rank = int(os.environ.get("RANK", 0))
    {statement}
    return original(*arguments, **options)
module.{name} = replaced
from common.cli import end_on_sigterm, run_entry_point
import {script} as script
end_on_sigterm()
sys.exit(run_entry_point(script.main, script.build_parser(), sys.argv[1:]))
"""


def failing(script, module, name, statement):
    """Start of a command; `statement` runs before each call of the function."""
    program = FAILING.format(script=script, module=module, name=name, statement=statement)
    return [sys.executable, "-c", program]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for name, num_frames in LENGTHS.items():
        write_clip(root / "test" / f"{name}.mp4", num_frames, (SIDE, SIDE))
    return root


def arguments(tiny_run, data, output, *options):
    given = ("--checkpoint", step_file(tiny_run, 8), "--data-root", data, "--output", output)
    return [str(value) for value in (*given, *options)]


def contents(folder):
    """Every file of a folder, by its path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def evaluated(tiny_run, data, tmp_path_factory):
    """The same evaluation in one process and in two; in both the clip `d` fails."""
    folder = tmp_path_factory.mktemp("evaluated")
    extractors = (
        *("--fid", write_script(folder / "means.pt", MeanColours())),
        *("--fvd", write_script(folder / "ends.pt", FirstAndLast()), "--fvd-length", 2),
    )
    statement = "if arguments[2] == 3: raise ZeroDivisionError('by zero')"
    start = failing("reconstruct", "evaluation.measuring", "measure_clip", statement)
    options = (*extractors, *FLOAT32, "--batch-size", 2, "--save-frames")
    ended = []
    for size in (1, 2):
        output = folder / str(size)
        given = [*start, *arguments(tiny_run, data, output, *options)]
        ended.append(finish_together(start_together(given, size)))
    return folder, ended


def test_two_processes_measure_the_same_to_the_last_bit(evaluated):
    folder, _ = evaluated
    one, two = contents(folder / "1"), contents(folder / "2")
    assert two == one
    rows = list(csv.DictReader((folder / "2" / "metrics.csv").open(newline="")))
    assert [row["clip"] for row in rows] == ["a", "b", "c", "e", "d"]
    assert json.loads(one["metrics.json"])["frechet"]["fid"]["num_frames"] == 7 + 2 + 9 + 3


def test_one_failure_is_told_once(evaluated):
    _, ((alone,), (first, second)) = evaluated
    assert alone.code == first.code == 1
    assert second.code == 0  # torchrun ends all when one process fails; rank 0 is last
    line = "reconstruct.py: error: clip d: ZeroDivisionError: by zero"
    assert (first.stderr + second.stderr).count(line) == 1
    assert first.stdout == alone.stdout.replace("on cpu", "on 2 x cpu").replace("/1:", "/2:")
    assert second.stdout == ""


def test_both_processes_measure(tiny_run, data, tmp_path):
    """Each writes which clips it measured, and waits in the first one until the other has one."""
    statement = (
        f"open({str(tmp_path)!r} + f'/rank{{rank}}', 'a').write(f'{{arguments[2]}} ')\n"
        f"    while not os.path.exists({str(tmp_path)!r} + f'/rank{{1 - rank}}'):\n"
        "        arguments[5].check(); time.sleep(0.01)"
    )
    start = failing("reconstruct", "evaluation.measuring", "measure_clip", statement)
    given = arguments(tiny_run, data, tmp_path / "out", *FLOAT32)
    ended = finish_together(start_together([*start, *given], 2))
    assert [process.code for process in ended] == [0, 0], ended
    found = [(tmp_path / f"rank{rank}").read_text().split() for rank in range(2)]
    assert sorted(map(int, found[0] + found[1])) == [0, 1, 2, 3, 4]
    assert all(found)


def test_an_error_of_one_process_ends_both_with_one_line(tiny_run, data, tmp_path):
    """Rank 1 finds that the model is damaged while rank 0 would work on for long."""
    statement = (
        "from common.errors import UserError\n"
        "    if rank == 1: raise UserError('is damaged')\n"
        "    for _ in range(600): arguments[5].check(); time.sleep(0.1)"
    )
    start = failing("reconstruct", "evaluation.measuring", "measure_clip", statement)
    given = arguments(tiny_run, data, tmp_path / "out", *FLOAT32)
    first, second = finish_together(start_together([*start, *given], 2))
    assert (first.code, second.code) == (2, 2)
    assert first.stderr.splitlines() == ["reconstruct.py: error: rank 1: is damaged"]
    assert second.stderr == ""
    assert not (tmp_path / "out").exists()


def test_clips_that_differ_between_machines_are_refused(tiny_run, data, tmp_path):
    """Rank 1 has clips of the same names and other content."""
    for name in LENGTHS:
        write_clip(tmp_path / "copy" / "test" / f"{name}.mp4", 2, (SIDE, SIDE))
    changed = f"arguments[0].model_copy(update={{'root': {str(tmp_path / 'copy')!r}}})"
    statement = f"if rank == 1: arguments = ({changed}, *arguments[1:])"
    start = failing("reconstruct", "reconstruct", "first_clips", statement)
    given = arguments(tiny_run, data, tmp_path / "out", *FLOAT32)
    first, second = finish_together(start_together([*start, *given], 2))
    assert (first.code, second.code) == (2, 2)
    (line,) = first.stderr.splitlines()
    assert line.startswith("reconstruct.py: error: checksum of the data: ")
    assert line.endswith("; give all processes the same arguments, and all machines the same files")
    assert second.stderr == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dying", [0, 1])
def test_a_process_that_dies_ends_the_other_with_one_line(tiny_run, data, tmp_path, dying):
    both_measure = tmp_path / "both-measure"
    statement = (
        "from pathlib import Path\n"
        f"    marker = Path({str(both_measure)!r})\n"
        f"    if rank != {dying}: marker.touch()\n"
        "    while not marker.exists(): time.sleep(0.1)\n"
        f"    if rank == {dying}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    for _ in range(600): arguments[5].check(); time.sleep(0.1)"
    )
    start = failing("reconstruct", "evaluation.measuring", "measure_clip", statement)
    given = arguments(tiny_run, data, tmp_path / "out", *FLOAT32)
    processes = start_together([*start, *given], 2)
    finish(processes[dying])
    began = time.monotonic()
    ended = finish(processes[1 - dying])
    assert time.monotonic() - began < 40  # the other would go on for 60 s
    assert ended.code == 2
    lines = ended.stderr.splitlines()
    if dying == 0:  # torch warns that the store is gone
        lines = [line for line in lines if line and not TORCH_WARNING.match(line)]
    assert len(lines) == 1, ended.stderr
    (line,) = lines
    survivor = "" if dying == 1 else "rank 1: "
    beginning = f"reconstruct.py: error: {survivor}rank {dying} has ended or cannot be reached ("
    assert line.startswith(beginning)
    assert line.endswith("; its own message says why; start again")


# Animations


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """sources/ (a.png, b.png, and broken.png, which is none) and clips/ (one.mp4, two/)."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "sources").mkdir()
    for number, name in enumerate("ab"):
        Image.fromarray(numbered_frame(number, (SIDE, SIDE))).save(folder / f"sources/{name}.png")
    (folder / "sources" / "broken.png").write_text("no image")
    write_clip(folder / "clips" / "one.mp4", 5, (SIDE, SIDE))
    write_frame_folder(folder / "clips" / "two", 3, (SIDE, SIDE))
    return folder


def animations(tiny_run, inputs, output, *options):
    return [
        *("--checkpoint", str(step_file(tiny_run, 8)), "--source", str(inputs / "sources")),
        *("--driving", str(inputs / "clips"), "--output", str(output), *FLOAT32, *options),
    ]


def rows(output):
    """results.csv with outputs as names, and without the time that each animation took."""
    with (output / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    return [row | {"seconds": "", "output": Path(row["output"]).name} for row in found]


def test_two_processes_animate_the_same(tiny_run, inputs, tmp_path):
    """Then one result is gone: both start again, and that is the only one they make."""
    given = [animations(tiny_run, inputs, tmp_path / str(size)) for size in (1, 2)]
    (alone,) = finish_together(start_together(command("animate.py", given[0]), 1))
    both = finish_together(start_together(command("animate.py", given[1]), 2))
    assert (alone.code, both[0].code) == (1, 1)
    assert rows(tmp_path / "2") == rows(tmp_path / "1")
    assert [row["status"] for row in rows(tmp_path / "2")] == ["done"] * 4 + ["failed"] * 2
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert one.keys() == two.keys()
    assert all(one[name] == two[name] for name in one if name != "results.csv")
    said = both[0].stdout + both[1].stdout
    for number in range(1, 7):
        assert len(re.findall(rf"^{number} of 6: ", said, re.MULTILINE)) == 1
    assert said.count("6 animations, 2 failed") == said.count("networks in float32") == 1
    assert "broken.png: not an image" in rows(tmp_path / "2")[4]["error"]

    before = rows(tmp_path / "2")
    kept = (tmp_path / "2" / "b--one.mp4").stat().st_mtime_ns
    (tmp_path / "2" / "a--two.mp4").unlink()
    again = [*given[1], "--skip-existing"]
    assert finish_together(start_together(command("animate.py", again), 2))[0].code == 1
    assert (tmp_path / "2" / "b--one.mp4").stat().st_mtime_ns == kept
    assert contents(tmp_path / "2")["a--two.mp4"] == two["a--two.mp4"]
    assert rows(tmp_path / "2") == before


def test_what_was_finished_before_an_interruption_stays(tiny_run, inputs, tmp_path):
    """Ctrl-C comes when the animations of one source are finished, and each process has another."""
    statement = "\n    ".join(
        (
            "if 'a.png' not in arguments[1].source:",
            f"    open({str(tmp_path)!r} + f'/rank{{rank}}', 'w').close()",
            # Rank 0 may be here before the other hands in its first result: it goes on receiving.
            "    for _ in range(600): arguments[4](0, None); time.sleep(0.1)",
        )
    )
    start = failing("animate", "animate", "run_job", statement)
    output = tmp_path / "out"
    processes = start_together([*start, *animations(tiny_run, inputs, output)], 2)
    table, begun = output / "results.csv", [tmp_path / f"rank{rank}" for rank in range(2)]
    wait_until(lambda: table.exists() and table.read_text().count("done") == 2, processes[0])
    wait_until(lambda: all(path.exists() for path in begun), processes[0])
    signal_together(processes, signal.SIGINT)
    first, second = finish_together(processes)
    assert (first.code, second.code) == (130, 130)
    assert (first.stderr + second.stderr).splitlines() == ["animate.py: interrupted"]
    assert [row["output"] for row in rows(output)] == ["a--one.mp4", "a--two.mp4"]
    assert sorted(path.name for path in output.iterdir()) == [
        *("a--one.mp4", "a--two.mp4", "results.csv")
    ]


def test_a_single_animation_takes_a_single_process(tiny_run, inputs, tmp_path):
    given = [
        *("--checkpoint", str(step_file(tiny_run, 8)), "--output", str(tmp_path / "a.mp4")),
        *("--source", str(inputs / "sources" / "a.png"), "--driving", str(inputs / "clips/two")),
    ]
    first, second = finish_together(start_together(command("animate.py", given), 2))
    assert (first.code, second.code) == (2, 2)
    assert first.stderr.splitlines() == [
        "animate.py: error: a single animation takes a single process; start animate.py without "
        "torchrun"
    ]
    assert second.stderr == ""
