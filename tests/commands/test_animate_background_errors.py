"""animate.py --background: bad input, and failures in the middle."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest

import animate
from tests.helpers.animations import pngs, write_files
from tests.helpers.media import write_clip, write_frame_folder
from tests.helpers.runs import call, error_line, step_file


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_run):
    return write_files(tmp_path_factory.mktemp("files"), step_file(tiny_run, 8))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--background missing.png", "--background missing.png: no such file; give an image, a"),
        ("--background missing.mp4", "--background missing.mp4: no such file or directory; give"),
        ("--background text.png", "--background text.png: not an image: the file holds text"),
        ("--background text.mp4", "--background text.mp4: not a video: the file holds text"),
        ("--background #00ff0", "--background #00ff0: not a colour; write #00ff00"),
        ("--background transparent --output o.mp4", "o.mp4: .mp4 has no transparency; use .webm"),
        ("--background transparent --output o.gif", "o.gif: .gif has no transparency; use .webm"),
        ("--background b.png --output b.png", "--output b.png would replace --background b.png"),
        ("--background in/b.png --output in", "--output in would replace --background in/b.png"),
        ("--background in/../b.png --output b.png", "would replace --background in/../b.png"),
        (
            "--driving o-masks.mp4 --output o.mp4 --save-masks",
            "--save-masks o-masks.mp4 would replace --driving o-masks.mp4",
        ),
        (
            "--background in-masks/b.png --output in2/../in --save-masks",
            "--save-masks in2/../in-masks would replace --background in-masks/b.png",
        ),
        ("--background-type same", "--background-type says what to do with a --background; give"),
        ("--background-end hold", "--background-end says what to do with a --background; give"),
        ("--compose alpha", "--compose says what to do with a --background; give one"),
        *(
            (f"--background {what} --background-end hold", "--background-end hold: is for a clip;")
            for what in ("b.png", "#0f0", "source", "transparent")
        ),
        ("--background missing.mp4 --background-end hold", "--background missing.mp4: no such"),
        (
            "--background #0f0 --background-type same",
            "--background-type same: the colour #0f0 has no figure to remove; leave it out",
        ),
        (
            "--background transparent --background-type other",
            "--background-type other: a transparent background has no picture; leave it out",
        ),
        (
            "--background transparent --compose network",
            "--compose network: a transparent background has no picture; leave it out",
        ),
        (
            "--background transparent --layout side-by-side",
            "--layout side-by-side: transparent shows the figure alone; use --layout result",
        ),
        (
            "--background transparent --show-masks",
            "--show-masks: a transparent result stands alone; use --save-masks",
        ),
        ("--layout demo", "--layout demo shows pictures by BGBase and BGRefine, which are not"),
        ("--background #0f0 --layout demo", "give a --background with --compose network"),
        ("--show-masks", "--show-masks adds columns; use it with --layout side-by-side or demo"),
        ("--animator masks --motion relative", "--motion belongs to the animator motion; leave"),
        ("--animator masks --adapt-scale", "--adapt-scale belongs to the animator motion; leave"),
        (
            "--checkpoint no-background.pt --background b.png --compose network",
            "--compose network: the checkpoint was trained without the background branch; use",
        ),
        (
            "--checkpoint no-masks-background.pt --animator masks",
            "--animator masks: the checkpoint was trained without the branch masks; it has: motion",
        ),
        (
            "--checkpoint no-motion.pt --animator motion",
            "without the branch motion; it has: masks, background",
        ),
        (
            "--checkpoint early.pt --background b.png --compose network",
            "--compose network: at step 8 the background branch has not started "
            "(background.start_epoch: 2); train on, or use --compose alpha",
        ),
        (
            "--checkpoint early.pt --animator masks",
            "--animator masks: at step 8 the refinement has not started "
            "(masks.refinement.start_epoch: 2); train on, or use --animator motion",
        ),
        (
            "--checkpoint no-motion-early.pt",
            "the refinement has not started (masks.refinement.start_epoch: 2); train on",
        ),
        (
            "--output taken --save-masks",
            "--save-masks taken-masks: a file has this name; choose another, or a suffix such as "
            ".mp4 (the name follows from --output)",
        ),
        ("--checkpoint no-motion.pt --motion relative", "--motion belongs to the animator motion"),
    ],
)
def test_bad_input(files, tmp_path, monkeypatch, capsys, arguments, expected):
    """`arguments` override the defaults: the last of two options of one name counts."""
    shutil.copytree(files, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    for folder in ("in", "in2", "in-masks"):
        (tmp_path / "work" / folder).mkdir()
    for name in ("b.png", "in/b.png", "in-masks/b.png"):
        shutil.copyfile("other.png", name)
    for name in ("text.png", "text.mp4", "taken-masks"):
        (tmp_path / "work" / name).write_text("hello")
    write_clip(tmp_path / "work" / "o-masks.mp4", 2, (32, 32))
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    defaults = "--checkpoint all.pt --source source.png --driving driving --output out"
    assert call(animate, *defaults.split(), *arguments.split()) == 2
    assert expected in error_line(capsys, "animate.py")
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before


def test_a_background_that_breaks_midway_leaves_the_earlier_results(files, tmp_path, capsys):
    broken = write_frame_folder(tmp_path / "broken", 4, (32, 32))
    (broken / "frame3.png").write_text("hello")
    for name in ("out.mp4", "out-masks.mp4"):
        (tmp_path / name).write_bytes(b"earlier")
    inputs = ("--source", files / "source.png", "--driving", files / "driving")
    options = ("--output", tmp_path / "out.mp4", "--background", broken, "--save-masks")
    batch = ("--batch-size", 1)
    assert call(animate, "--checkpoint", files / "all.pt", *inputs, *options, *batch) == 2
    line = error_line(capsys, "animate.py")
    assert f"--background {broken / 'frame3.png'}: not an image: the file holds text" in line
    for name in ("out.mp4", "out-masks.mp4"):
        assert (tmp_path / name).read_bytes() == b"earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"broken", "out.mp4", "out-masks.mp4"}


def test_a_video_that_fails_at_its_end_leaves_the_earlier_masks(
    files, tmp_path, monkeypatch, capsys
):
    """The system fails to rename the earlier result, which must be put aside."""
    inputs = ("--source", files / "source.png", "--driving", files / "driving")
    options = ("--output", tmp_path / "out", "--save-masks")
    assert call(animate, "--checkpoint", files / "square.pt", *inputs, *options) == 0
    earlier = pngs(tmp_path / "out-masks")
    rename = Path.rename

    def refuse(path, target):
        if path == tmp_path / "out":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    capsys.readouterr()
    assert call(animate, "--checkpoint", files / "all.pt", *inputs, *options) == 2
    assert f"{tmp_path / 'out'}: cannot be written" in error_line(capsys, "animate.py")
    assert np.array_equal(pngs(tmp_path / "out-masks"), earlier)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out-masks"}
