"""Names that the system refuses: too long, a link to such a name, and a link to itself."""

import csv
import os
import shutil

import pytest

import animate
import reconstruct
import train
from checkpoints import export
from datasets.prepare import __main__ as prepare
from evaluation import tables
from tests.helpers.media import write_clip, write_frame_folder
from tests.helpers.runs import call, error_line, step_file, tiny

LONG = "a" * 300
NAMES = (LONG, "to_long", "loop")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working folder, with clip.mp4, picture.png and links named as in NAMES."""
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", 3, (32, 32))
    shutil.copy(next(write_frame_folder(tmp_path / "f", 1, (32, 32)).glob("*.png")), "picture.png")
    (tmp_path / "to_long").symlink_to(LONG)
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_options_of_animate(tiny_run, place, capsys, name):
    given = {
        "--source": "picture.png",
        "--driving": "clip.mp4",
        "--background": "#000",
        "--audio": "none",
        "--output": "out.mp4",
    }
    for option in given:
        value = name if option != "--output" else f"{name}/x.mp4"
        arguments = [text for pair in (given | {option: value}).items() for text in pair]
        assert call(animate, "--checkpoint", step_file(tiny_run, 8), *arguments) == 2, option
        assert name[:20] in error_line(capsys, "animate.py")
    one = ("--source", "picture.png", "--driving", "clip.mp4", "--output", f"{LONG}.mp4")
    assert call(animate, "--checkpoint", step_file(tiny_run, 8), *one) == 2
    assert "cannot be written: file name too long" in error_line(capsys, "animate.py")
    for option in ("--masks", "--background-masks"):
        given = ("--source", "picture.png", "--driving", "clip.mp4", "--output", "out.mp4")
        extra = ("--background", "#000", option, name)
        assert call(animate, "--checkpoint", step_file(tiny_run, 8), *given, *extra) == 2
        assert name[:20] in error_line(capsys, "animate.py")
    camera = ("--source", name, "--driving", "camera:clip.mp4", "--port", "0")
    saved = ("--checkpoint", step_file(tiny_run, 8))
    for arguments in (
        (*saved, *camera),
        ("--checkpoint", name),
        (*saved, "--pairs", name, "--output", "out"),
    ):
        assert call(animate, *arguments) == 2
        assert name[:20] in error_line(capsys, "animate.py")


@pytest.mark.parametrize("column", ["source", "driving", "background"])
def test_one_row_of_pairs(tiny_run, place, capsys, column):
    good = {"source": "picture.png", "driving": "clip.mp4", "background": ""}
    with open("pairs.csv", "w", newline="") as file:
        table = csv.DictWriter(file, [*good, "output"])
        table.writeheader()
        for number, name in enumerate((*NAMES, good[column])):
            table.writerow(good | {column: name, "output": f"{number}.mp4"})
    many = ("--pairs", "pairs.csv", "--output", "out")
    assert call(animate, "--checkpoint", step_file(tiny_run, 8), *many) == 1
    with open("out/results.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["failed"] * 3 + ["done"]


def test_folders_with_links_that_lead_nowhere(tiny_run, place):
    for folder, suffix in (("sources", ".png"), ("clips", ".mp4")):
        (place / folder).mkdir()
        for name in NAMES[1:]:
            os.symlink(LONG if name == "to_long" else f"loop{suffix}", f"{folder}/{name}{suffix}")
    shutil.copy("picture.png", "sources")
    shutil.copy("clip.mp4", "clips")
    many = ("--source", "sources", "--driving", "clips", "--output", "out")
    assert call(animate, "--checkpoint", step_file(tiny_run, 8), *many) == 1
    with open("out/results.csv", newline="") as file:
        rows = {row["driving"]: row["status"] for row in csv.DictReader(file)}
    assert rows == {
        "clips/clip.mp4": "done",
        "clips/loop.mp4": "failed",
        "clips/to_long.mp4": "failed",
    }


@pytest.mark.parametrize("name", NAMES)
def test_training_and_evaluation(tiny_run, place, capsys, name):
    (place / "base.yaml").write_text(f"base: {name}\n")
    saved = ("--checkpoint", step_file(tiny_run, 8))
    for module, *arguments in (
        (train, *tiny(place / "run", "data.kind=clips", f"data.root={name}")),
        (train, *tiny(place / "run", f"run.output_dir={name}")),
        (train, "--config", name),
        (train, "--config", "base.yaml"),
        (train, "--resume", name),
        (reconstruct, *saved, "--data-root", name),
        (reconstruct, *saved, "--output", f"{name}/x"),
        (reconstruct, *saved, "--output", place / "out", "--salient", name),
        (reconstruct, *saved, "--output", place / "out", "--fid", name),
        (reconstruct, "--compare", name, name),
    ):
        assert call(module, *arguments) == 2, arguments
        line = capsys.readouterr().err.splitlines()[-1]
        assert ": error: " in line
        assert name[:20] in line


@pytest.mark.parametrize("name", NAMES)
def test_preparation(place, capsys, name):
    for arguments in (
        ("--input", name, "--output", "out"),
        ("--input", "f", "--output", name),
        ("--input", "f", "--output", "out", "--metadata", name),
    ):
        argv = [*arguments, "--workers", "1"]
        assert prepare.run_entry_point(prepare.main, prepare.build_parser(), argv) == 2, arguments
        line = capsys.readouterr().err.splitlines()[-1]
        assert ": error: " in line
        assert name[:20] in line


@pytest.mark.parametrize("name", NAMES)
def test_export_and_tables(tiny_run, place, capsys, name):
    saved = str(step_file(tiny_run, 8))
    for module, *argv in (
        (export, name, "--output", "x.pt"),
        (export, saved, "--output", f"{name}/x.pt"),
        (tables, name),
    ):
        assert module.run_entry_point(module.main, module.build_parser(), argv) == 2, argv
        line = capsys.readouterr().err.splitlines()[-1]
        assert ": error: " in line
        assert name[:20] in line
