"""Names that control a terminal, or are no text: they are shown escaped, in one line."""

import os
import shutil
from pathlib import Path

import pytest

import animate
import reconstruct
import train
from datasets.prepare import __main__ as prepare
from tests.helpers.media import write_clip, write_frame_folder
from tests.helpers.runs import call, run, step_file, tiny

CONTROL = "a\x1b[31mb\x1b]0;c\x07d\ne"  # colours, a title for the window, a second line
NAMES = (CONTROL, os.fsdecode(b"x\xffy"), "c\x9b31m")


@pytest.fixture
def data(tmp_path):
    """train/ and test/ with clips of odd names: whole, broken, of one frame, and no clip at all."""
    for split in ("train", "test"):
        folder = tmp_path / "data" / split
        write_clip(folder / "plain.mp4", 4, (32, 32))
        for name in NAMES:
            shutil.copy(folder / "plain.mp4", folder / f"{name}.mp4")
            write_frame_folder(folder / f"{name}-frames", 1, (32, 32))
            (folder / f"{name}-notes{name}").write_text("no clip")
    return tmp_path / "data"


def spoil(data: Path) -> None:
    """One clip that cannot be read, one that is cut short."""
    whole = (data / "test" / "plain.mp4").read_bytes()
    (data / "test" / f"{CONTROL}broken.mp4").write_text("no clip")
    (data / "test" / f"{CONTROL}cut.avi").write_bytes(whole[:-300])


def check_shown(capfd: pytest.CaptureFixture[str]) -> None:
    captured = capfd.readouterr()
    for text in (captured.out, captured.err):
        shown = text.replace("\r", "\n").replace("\x1b[A", "")  # of progress bars
        assert all(line.isprintable() for line in shown.split("\n")), ascii(shown)
        assert not any(line.startswith("e") for line in shown.split("\n")), ascii(shown)
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("name", NAMES)
def test_one_animation(tiny_run, data, tmp_path, capfd, name):
    picture = next((data / "test" / f"{name}-frames").glob("*.png"))
    one = ("--checkpoint", step_file(tiny_run, 8), "--source", picture)
    driving = data / "test" / f"{name}.mp4"
    for options in ((), ("--crop", "auto"), ("--background", picture)):
        output = tmp_path / f"{name}.mp4"
        call(animate, *one, "--driving", driving, "--output", output, *options)
    assert output.exists()
    call(animate, *one, "--driving", tmp_path / name, "--output", tmp_path / "b.mp4")
    call(animate, *one, "--driving", driving, "--output", tmp_path / name / "c.xyz")
    call(animate, "--checkpoint", tmp_path / name)
    check_shown(capfd)


def test_many_animations(tiny_run, data, tmp_path, capfd):
    spoil(data)
    picture = next((data / "test").glob("*frames/*.png"))
    one = ("--checkpoint", step_file(tiny_run, 8), "--source", picture)
    assert call(animate, *one, "--driving", data / "test", "--output", tmp_path / CONTROL) == 1
    check_shown(capfd)


def test_reconstruction_and_training(tiny_run, data, tmp_path, capfd):
    out = tmp_path / f"{CONTROL}out"
    read = ("--checkpoint", step_file(tiny_run, 8), "--data-root", data, "--output", out)
    call(reconstruct, *read)
    call(reconstruct, "--compare", out, tmp_path / CONTROL)
    training = (f"data.root={data}", "data.kind=clips", "data.repeats=1", "train.max_steps=1")
    call(train, *tiny(tmp_path / "run", *training))
    spoil(data)
    call(reconstruct, *read)
    call(train, *tiny(tmp_path / "run2", *training))
    call(train, "--config", CONTROL)
    call(train, "--resume", tmp_path / CONTROL)
    check_shown(capfd)


@pytest.mark.parametrize("form", ["packed", "frames"])
def test_preparation(data, tmp_path, capfd, form):
    spoil(data)
    options = ("--image-size", "32", "--min-size", "16", "--format", form, "--workers", "1")
    argv = [*map(str, ("--input", data, "--output", tmp_path / f"{CONTROL}out", *options))]
    prepare.run_entry_point(prepare.main, prepare.build_parser(), argv)
    check_shown(capfd)


def test_a_batch_goes_on_where_the_terminal_takes_no_such_names(
    tiny_run, data, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    picture = next((data / "test" / f"{NAMES[1]}-frames").glob("*.png"))
    one = ("--checkpoint", step_file(tiny_run, 8), "--source", picture)
    ended = run("animate.py", *one, "--driving", data / "test", "--output", tmp_path / "out")
    assert "7 animations, 0 failed" in ended.stdout
    assert "x\\udcffy.mp4" in ended.stdout
