"""Reading, networks and writing, in turns or overlapped: same frames, no leftovers."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from animation.background_swap import BackgroundSwapper
from animation.output import Output, write_animation
from branches.model import Model
from common.errors import UserError
from tests.helpers.animations import build_animation, pngs
from tests.helpers.factories import tiny_config
from tests.helpers.media import numbered_frame

CPU = torch.device("cpu")
SIDE = 32
NUM_FRAMES = 12


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture(params=[False, True], ids=["in turns", "overlapped"])
def overlapped(request):
    return request.param


@pytest.fixture(scope="module")
def model():
    return Model(tiny_config("data.image_size=32")).eval()


def numbered(count=NUM_FRAMES, error=None):
    """`count` numbered frames; then `error` is raised."""
    for number in range(count):
        yield numbered_frame(number, (SIDE, SIDE))
    if error is not None:
        raise error


def animation(model, driving, backgrounds=None):
    swapper = None if backgrounds is None else BackgroundSwapper(model, "other", "alpha")
    return build_animation(model, driving, swapper, backgrounds)


def nothing(_):
    pass


def left_in(folder: Path):
    return sorted(folder.iterdir())


@pytest.mark.parametrize("swaps", [False, True])
def test_the_frames_are_those_of_the_animation(model, tmp_path, overlapped, swaps):
    other = list(numbered(40))[25:] if swaps else None
    expected = list(animation(model, numbered(), other).frames())
    written = []
    output = Output(tmp_path / "out")
    made = animation(model, numbered(), other)
    assert write_animation(made, output, written.append, overlapped) == NUM_FRAMES
    assert np.array_equal(pngs(tmp_path / "out"), expected)
    assert len(expected) == NUM_FRAMES
    assert np.array_equal(
        np.concatenate([batch.driving for batch in written]), list(numbered())
    )  # in order


def test_a_background_that_ends_ends_the_animation(model, tmp_path, overlapped):
    made = animation(model, numbered(), list(numbered(5)))
    assert write_animation(made, Output(tmp_path / "out"), nothing, overlapped) == 5


@pytest.mark.parametrize("where", ["driving", "backgrounds"])
def test_a_clip_that_is_damaged_in_the_middle(model, tmp_path, overlapped, where):
    error = UserError("clip.mp4: damaged at frame 7")
    damaged, whole = numbered(7, error), numbered()
    made = animation(model, *((damaged, whole) if where == "driving" else (whole, damaged)))
    with pytest.raises(UserError) as caught:
        write_animation(made, Output(tmp_path / "out"), nothing, overlapped)
    assert caught.value is error
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), UserError("disk full")])
def test_an_interruption_leaves_nothing(model, tmp_path, overlapped, error):
    read = []

    def endless():
        number = 0
        while True:
            read.append(number)
            yield numbered_frame(number % 50, (SIDE, SIDE))
            number += 1

    def interrupt(_):
        raise error

    made = animation(model, endless())
    with pytest.raises(type(error)):
        write_animation(made, Output(tmp_path / "out.mp4"), interrupt, overlapped)
    assert left_in(tmp_path) == []
    # Overlapped: three batches of two in progress, two batches read ahead, one frame being read.
    assert len(read) <= (11 if overlapped else 2)


def test_errors_of_the_networks_are_raised(model, tmp_path, overlapped):
    other_size = [numbered_frame(0, (SIDE, SIDE)), numbered_frame(0, (16, 16))]
    with pytest.raises(UserError, match="driving frames are 16 x 16 pixels"):
        write_animation(
            animation(model, [other_size[0]] * 2 + [other_size[1]] * 2),
            Output(tmp_path / "out"),
            nothing,
            overlapped,
        )
    assert left_in(tmp_path) == []
