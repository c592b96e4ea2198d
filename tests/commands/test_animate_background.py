"""animate.py --background: kinds of background, and how they are composed.

For the `square` checkpoint the figure is a square in the middle of any picture.
"""

import shutil
from fractions import Fraction
from itertools import count, cycle

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
    assert_rounded_alike,
    expected_swap,
    picture,
    pngs,
    run_to_folder,
    swapped_batches,
    uint8,
    write_files,
)
from tests.helpers.factories import tiny_config
from tests.helpers.media import numbered_frame, write_clip
from tests.helpers.runs import call, step_file

FIGURE = np.zeros((32, 32), bool)  # figure of the square checkpoint; its corners are partly opaque
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


# Kinds of background


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
    assert np.array_equal(result[..., :3], plain)  # colours are not multiplied by alpha
    alpha = result[..., 3]
    assert (alpha[:, FIGURE & ~CORNERS] == 255).all()
    assert (alpha[:, ~FIGURE] == 0).all()
    # The mask is (3/4)^2 at the corners, which is 5/8 of the way up the ramp.
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
    )  # type `same`: its figure is removed


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
    """The background has 12 frames a second, the driving clip 25: they match by their times."""
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


# Composing


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
    assert_rounded_alike(result, uint8(swapped.result))


def test_colour_by_the_networks(run, tmp_path, files):
    """The networks get the colour as a picture of type `other`."""
    Image.new("RGB", (32, 32), GREEN).save(tmp_path / "green.png")
    painted = run(tmp_path / "a", "--background", GREEN, "--compose", "network")
    file = ("--background", tmp_path / "green.png", "--background-type", "other")
    assert np.array_equal(painted, run(tmp_path / "b", *file))
    laid_over = run(tmp_path / "c", "--background", GREEN)
    assert np.array_equal(laid_over, run(tmp_path / "d", *file, "--compose", "alpha"))
    assert not np.array_equal(painted, laid_over)


def test_a_still_clip_is_like_a_picture(run, tmp_path, files):
    """The mask of a picture is computed once a batch, that of a clip for every frame."""
    (tmp_path / "still").mkdir()
    for number in range(2):
        shutil.copyfile(files / "other.png", tmp_path / "still" / f"{number}.png")
    clip = run(tmp_path / "clip", "--background", tmp_path / "still")
    image = run(tmp_path / "image", "--background", files / "other.png")
    assert_rounded_alike(clip, image)


# Checkpoints from before the start of a network's training


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
def test_untrained_parts_by_epoch(files, place, starts, expected):
    """A network that starts in epoch n is trained once the first step of epoch n is done."""
    keys = ("masks.refinement.start_epoch", "background.start_epoch")
    overrides = [f"{key}={start}" for key, start in zip(keys, starts, strict=True)]
    saved = load(files / "all.pt")._replace(config=tiny_config("train.epochs=3", *overrides))
    untrained = saved._replace(epoch=place[0], batch=place[1]).untrained
    assert list(map(str, untrained.values())) == expected


@pytest.mark.parametrize(
    ("step", "planned", "expected"),
    [(0, None, 2), (40, None, 2), (2, 40, 2), (3, 40, 1), (4, 40, 1), (5, 40, 0)],
)
def test_untrained_parts_by_share_of_the_steps(files, step, planned, expected):
    """Of 40 steps, refinement trains from the third on, background from the fifth."""
    shares = ("masks.refinement.start_share=0.05", "background.start_share=0.1")
    saved = load(files / "all.pt")._replace(config=tiny_config(*shares), epoch=9)
    assert len(saved._replace(step=step, planned_steps=planned).untrained) == expected


@pytest.mark.parametrize(
    "options", [(), ("--background", GREEN), ("--background", "transparent"), ("--save-masks",)]
)
def test_trained_parts_are_used(run, tmp_path, options):
    early = run(tmp_path / "early", *options, model="early")
    assert np.array_equal(early, run(tmp_path / "all", *options))


@pytest.mark.parametrize("model", ["no-background", "early"])
def test_a_checkpoint_that_cannot_paint_lays_the_figure_over(run, tmp_path, files, capsys, model):
    """Its own masks cut out both figures, and the hole of the background is inpainted."""
    options = ("--background", files / "other.png")
    result = run(tmp_path / "out", *options, model=model)
    assert "the model's own masks), and the hole filled by biharmonic" in capsys.readouterr().out
    masks = ("--masks", "model", "--background-masks", "model", "--compose", "alpha")
    assert np.array_equal(run(tmp_path / "named", *options, *masks, model=model), result)
    # Where no figure is, the background keeps its pixels.
    assert np.array_equal(result[:, 0], np.stack([picture(files / "other.png")[0]] * 5))


# Streaming


def test_streams(files):
    """The next batch of driving frames and backgrounds is read only when it is needed."""
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
    """This holds even if the driving clip never ends."""
    model = load_model(load(files / "all.pt"), CPU)
    frames = [numbered_frame(number, (32, 32)) for number in range(6)]
    swapper = BackgroundSwapper(model, "same", "alpha")
    for batch_size, lengths in ((4, [4, 1]), (5, [5])):
        batches = swapped_batches(model, swapper, cycle(frames), frames[:5], batch_size)
        assert [len(batch.driving) for batch in batches] == lengths
