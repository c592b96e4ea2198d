"""animate.py --background: what stands behind the figure, how it is composed, bad input.

The `square` checkpoint says that the figure is the middle of any picture.
"""

import errno
import shutil
from fractions import Fraction
from itertools import count, cycle
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import animate
from animation.background_swap import BackgroundSwapper
from checkpoints.checkpoint import load
from checkpoints.weights import load_model
from media.images import fit_frames
from media.video import open_clip
from tests.helpers.animations import (
    CPU,
    expected_swap,
    picture,
    pngs,
    run_to_folder,
    swapped_batches,
    uint8,
    write_files,
)
from tests.helpers.factories import tiny_config
from tests.helpers.media import numbered_frame, write_clip, write_frame_folder
from tests.helpers.runs import call, error_line, step_file

FIGURE = np.zeros((32, 32), bool)  # of the square checkpoint; alpha is partial at its corners
FIGURE[6:-6, 6:-6] = True
CORNERS = np.zeros((32, 32), bool)
CORNERS[np.ix_((6, -7), (6, -7))] = True
GREEN = "#00ff00"
OVER = ("--compose", "alpha", "--background-type", "other")


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_run):
    return write_files(tmp_path_factory.mktemp("files"), step_file(tiny_run, 8))


@pytest.fixture
def run(files):
    def to_folder(output, *arguments, model="all"):
        return run_to_folder(files, model, output, *arguments)

    return to_folder


# What stands behind the figure


@pytest.mark.parametrize("animator", ["motion", "masks"])
def test_colour(run, tmp_path, animator):
    choice = ("--animator", animator)
    plain = run(tmp_path / "plain", *choice, model="square")
    result = run(tmp_path / "green", *choice, "--background", GREEN, model="square")
    assert np.array_equal(result[:, FIGURE & ~CORNERS], plain[:, FIGURE & ~CORNERS])
    assert (result[:, ~FIGURE] == (0, 255, 0)).all()


def test_transparent(run, tmp_path):
    plain = run(tmp_path / "plain", model="square")
    result = run(tmp_path / "cut", "--background", "transparent", model="square")
    assert np.array_equal(result[..., :3], plain)  # straight alpha: the colours stay
    alpha = result[..., 3]
    assert (alpha[:, FIGURE & ~CORNERS] == 255).all()
    assert (alpha[:, ~FIGURE] == 0).all()
    # The mask is (3/4)^2 there, which is 5/8 of the way up the ramp.
    assert (alpha[:, CORNERS] == round(255 * (3 * 0.625**2 - 2 * 0.625**3))).all()


def test_transparent_webm(files, tmp_path):
    inputs = ("--source", files / "source.png", "--driving", files / "driving")
    output = tmp_path / "cut.webm"
    options = ("--background", "transparent", "--output", output)
    assert call(animate, "--checkpoint", files / "square.pt", *inputs, *options) == 0
    assert open_clip(output).num_frames == 5
    with av.open(str(output)) as container:
        assert container.streams.video[0].metadata["alpha_mode"] == "1"


def test_source_itself(run, tmp_path, files):
    for options in (("--background", "source"), ("--background", files / "source.png")):
        result = run(tmp_path / "out", *options, *OVER, model="square")
        assert (result[:, ~FIGURE] == picture(files / "source.png")[~FIGURE]).all()
    named = run(tmp_path / "named", "--background", "source")
    assert np.array_equal(
        named, run(tmp_path / "file", "--background", files / "source.png")
    )  # of the same type: its figure is removed


def test_files_named_like_a_keyword(run, tmp_path, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(files / "other.png", tmp_path / "source")
    result = run(tmp_path / "out", "--background", "./source", *OVER, model="square")
    assert (result[:, ~FIGURE] == picture(files / "other.png")[~FIGURE]).all()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), [0, 1, 2, 0, 1]),
        (("--background-end", "loop"), [0, 1, 2, 0, 1]),
        (("--background-end", "hold"), [0, 1, 2, 2, 2]),
        (("--background-end", "stop"), [0, 1, 2]),
    ],
)
def test_clip(run, tmp_path, files, options, shown, batch_size):
    result = run(
        *(tmp_path / "out", "--background", files / "short", *options, *OVER),
        *("--batch-size", batch_size, "--save-masks"),
        model="square",
    )
    expected = open_clip(files / "short").read(shown)
    assert np.array_equal(result[:, ~FIGURE], expected[:, ~FIGURE])
    assert len(pngs(tmp_path / "out-masks")) == len(shown)


def test_clip_in_step_with_the_driving_one(run, tmp_path):
    """12 frames a second behind 25: what is on screen at the time of each driving frame."""
    path = write_clip(tmp_path / "slow.mkv", 4, (32, 32), Fraction(12))
    result = run(tmp_path / "out", "--background", path, *OVER, model="square")
    expected = open_clip(path).read([0, 0, 0, 1, 1])
    assert np.array_equal(result[:, ~FIGURE], expected[:, ~FIGURE])


def test_another_shape_is_announced(run, tmp_path, files, capsys):
    for background in (files / "wide.png", "source", GREEN):
        run(tmp_path / "out", "--background", background)
    lines = capsys.readouterr().out.splitlines()
    announced = [line for line in lines if "pixels" in line]
    how = "50 x 30 pixels, cropped at the centre to the shape of the model"
    assert announced == [f"{files / 'wide.png'}: {how}"]
    result = run(tmp_path / "out", "--background", files / "wide.png", *OVER, model="square")
    expected = fit_frames(picture(files / "wide.png")[None], (32, 32), "crop")[0]
    assert (result[:, ~FIGURE] == expected[~FIGURE]).all()


# How it is composed


@pytest.mark.parametrize(
    ("options", "kind", "compose"),
    [
        ((), "same", "network"),
        (("--background-type", "same", "--compose", "network"), "same", "network"),
        (("--background-type", "other"), "other", "network"),
        (("--compose", "alpha"), "same", "alpha"),
        (OVER, "other", "alpha"),
    ],
)
@pytest.mark.parametrize("animator", ["motion", "masks"])
def test_type_and_composition(run, tmp_path, files, options, kind, compose, animator):
    choice = ("--animator", animator, "--background", files / "other.png")
    result = run(tmp_path / "out", *choice, *options)
    _, _, swapped = expected_swap(files, kind, compose, animator)
    assert np.array_equal(result, uint8(swapped.result))


def test_colour_by_the_networks(run, tmp_path, files):
    """They get the colour as a picture of another type."""
    Image.new("RGB", (32, 32), GREEN).save(tmp_path / "green.png")
    painted = run(tmp_path / "a", "--background", GREEN, "--compose", "network")
    file = ("--background", tmp_path / "green.png", "--background-type", "other")
    assert np.array_equal(painted, run(tmp_path / "b", *file))
    laid_over = run(tmp_path / "c", "--background", GREEN)
    assert np.array_equal(laid_over, run(tmp_path / "d", *file, "--compose", "alpha"))
    assert not np.array_equal(painted, laid_over)


def test_a_still_clip_is_like_a_picture(run, tmp_path, files):
    """Whose mask is made once a batch instead of for every frame."""
    (tmp_path / "still").mkdir()
    for number in range(2):
        shutil.copyfile(files / "other.png", tmp_path / "still" / f"{number}.png")
    clip = run(tmp_path / "clip", "--background", tmp_path / "still").astype(int)
    image = run(tmp_path / "image", "--background", files / "other.png").astype(int)
    assert np.abs(clip - image).max() <= 1


# Before the networks have started


@pytest.mark.parametrize(
    ("place", "starts", "expected"),
    [
        ((0, 0), (0, 0), ["masks.refinement.start_epoch: 0", "background.start_epoch: 0"]),
        ((0, 1), (0, 0), []),
        ((0, 3), (1, 2), ["masks.refinement.start_epoch: 1", "background.start_epoch: 2"]),
        ((1, 0), (1, 2), ["masks.refinement.start_epoch: 1", "background.start_epoch: 2"]),
        ((1, 1), (1, 2), ["background.start_epoch: 2"]),
        ((2, 1), (1, 2), []),
    ],
)
def test_what_has_not_seen_a_step(files, place, starts, expected):
    """A network that starts in epoch n has learned when the next step is later than n's first."""
    keys = ("masks.refinement.start_epoch", "background.start_epoch")
    overrides = [f"{key}={start}" for key, start in zip(keys, starts, strict=True)]
    saved = load(files / "all.pt")._replace(config=tiny_config("train.epochs=3", *overrides))
    untrained = saved._replace(epoch=place[0], batch=place[1]).untrained
    assert list(map(str, untrained.values())) == expected


@pytest.mark.parametrize(
    ("step", "planned", "expected"),
    [(0, None, 2), (40, None, 2), (2, 40, 2), (3, 40, 1), (4, 40, 1), (5, 40, 0)],
)
def test_what_has_not_reached_its_share_of_the_steps(files, step, planned, expected):
    """Of 40 steps refinement learns from the third on, background from the fifth."""
    shares = ("masks.refinement.start_share=0.05", "background.start_share=0.1")
    saved = load(files / "all.pt")._replace(config=tiny_config(*shares), epoch=9)
    assert len(saved._replace(step=step, planned_steps=planned).untrained) == expected


@pytest.mark.parametrize(
    "options", [(), ("--background", GREEN), ("--background", "transparent"), ("--save-masks",)]
)
def test_what_has_started_is_used(run, tmp_path, options):
    early = run(tmp_path / "early", *options, model="early")
    assert np.array_equal(early, run(tmp_path / "all", *options))


# It streams


def test_streams(files):
    """A batch of driving frames and of backgrounds is read, and only then the next one."""
    model = load_model(load(files / "all.pt"), CPU)
    num_read = {"driving": 0, "background": 0}

    def endless(name):
        for number in count():
            num_read[name] += 1
            yield numbered_frame(number, (32, 32))

    driving = endless("driving")
    swapper = BackgroundSwapper(model, "same", "alpha")
    batches = swapped_batches(model, swapper, driving, endless("background"), batch_size=4)
    for done in range(1, 4):
        batch = next(batches)
        assert len(batch.background) == len(batch.swapped.result) == 4
        assert num_read == {"driving": 4 * done, "background": 4 * done}


def test_the_end_of_the_background_ends_the_animation(files):
    """Though the driving clip never ends."""
    model = load_model(load(files / "all.pt"), CPU)
    frames = [numbered_frame(number, (32, 32)) for number in range(6)]
    swapper = BackgroundSwapper(model, "same", "alpha")
    for batch_size, lengths in ((4, [4, 1]), (5, [5])):
        batches = swapped_batches(model, swapper, cycle(frames), frames[:5], batch_size)
        assert [len(batch.driving) for batch in batches] == lengths


# Bad input


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
        ("--layout demo", "--layout demo shows what BGBase and BGRefine paint, and nothing needs"),
        ("--background #0f0 --layout demo", "give a --background with --compose network"),
        ("--show-masks", "--show-masks adds columns; use it with --layout side-by-side or demo"),
        ("--animator masks --motion relative", "--motion belongs to the animator motion; leave"),
        ("--animator masks --adapt-scale", "--adapt-scale belongs to the animator motion; leave"),
        (
            "--checkpoint no-background.pt --background b.png",
            "--background: the checkpoint was trained without the background branch; use --compose",
        ),
        (
            "--checkpoint no-background.pt --background b.png --background-type other",
            "--background: the checkpoint was trained without the background branch",
        ),
        (
            "--checkpoint no-masks-background.pt --background transparent",
            "--background: the checkpoint was trained without the mask branch, so no figure",
        ),
        (
            "--checkpoint no-masks-background.pt --save-masks",
            "--save-masks: the checkpoint was trained without the mask branch; leave it out",
        ),
        (
            "--checkpoint no-masks-background.pt --layout side-by-side --show-masks",
            "--show-masks: the checkpoint was trained without the mask branch; leave it out",
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
            "--checkpoint early.pt --background b.png",
            "--background: at step 8 the background branch has not started "
            "(background.start_epoch: 2); train on, or use --compose alpha --background-type other",
        ),
        (
            "--checkpoint early.pt --background b.png --compose alpha",
            "--background: at step 8 the background branch has not started",
        ),
        (
            "--checkpoint early.pt --background b.png --background-type other",
            "--background: at step 8 the background branch has not started",
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
    """The last of two options of one name counts."""
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
    """The system refuses to put the earlier result aside."""
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
