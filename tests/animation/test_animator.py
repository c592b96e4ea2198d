"""The Python API `Animator`."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import animate
from animation import Animator, Settings
from animation.background_swap import BackgroundSwapper
from common.errors import UserError
from media.video import open_clip
from tests.helpers.animations import pngs
from tests.helpers.media import numbered_frame, write_clip, write_frame_folder
from tests.helpers.runs import call, step_file

SIDE = 32


@pytest.fixture(scope="module")
def animator(tiny_run):
    return Animator.load(step_file(tiny_run, 8), device="cpu")


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(numbered_frame(21, (SIDE, SIDE))).save(folder / "source.png")
    Image.fromarray(numbered_frame(7, (40, 50))).save(folder / "third.png")
    write_frame_folder(folder / "driving", 5, (SIDE, SIDE))
    write_clip(folder / "driving.mp4", 5, (SIDE, SIDE), Fraction(30))
    return folder


@pytest.fixture
def source(media):
    return np.array(Image.open(media / "source.png"))


@pytest.fixture
def driving(media):
    return open_clip(media / "driving").read(range(5))


@pytest.mark.parametrize("background", [None, "third.png", "#00ff00", "source", "transparent"])
def test_the_same_as_the_script(tiny_run, animator, tmp_path, media, background):
    if background is not None and background.endswith(".png"):
        background = str(media / background)
    choice = () if background is None else ("--background", background)
    files = ("--source", media / "source.png", "--driving", media / "driving")
    checkpoint = ("--checkpoint", step_file(tiny_run, 8))
    assert call(animate, *checkpoint, *files, "--output", tmp_path / "out", *choice) == 0
    frames = list(animator.animate(media / "source.png", media / "driving", background))
    assert all(frame.dtype == np.uint8 for frame in frames)
    assert np.array_equal(frames, pngs(tmp_path / "out"))


def test_kinds_of_input(animator, media, source, driving):
    """A file, its reader, an array, a list and an iterator of the same frames are equivalent."""
    expected = list(animator.animate(source, media / "driving"))
    reader = open_clip(media / "driving")
    for frames in (str(media / "driving"), reader, driving, list(driving), iter(driving)):
        assert np.array_equal(list(animator.animate(source, frames)), expected)


def test_a_picture_in_memory_as_background(animator, media, source, driving):
    third = np.array(Image.open(media / "third.png"))
    expected = list(animator.animate(source, driving, str(media / "third.png")))
    assert np.array_equal(list(animator.animate(source, driving, third)), expected)
    assert not np.array_equal(list(animator.animate(source, driving)), expected)


@pytest.mark.parametrize("background", ["third.png", "source"])
def test_a_still_background_is_uploaded_once(animator, media, driving, monkeypatch, background):
    """All batches get the same tensor, so that what is found out about it is kept."""
    got = []
    swap = BackgroundSwapper.swap

    def noted(swapper, frames, backgrounds):
        got.append(backgrounds)
        return swap(swapper, frames, backgrounds)

    monkeypatch.setattr(BackgroundSwapper, "swap", noted)
    name = background if background == "source" else media / background
    frames = list(animator.animate(media / "source.png", driving, name, Settings(batch_size=2)))
    assert len(frames) == 5
    assert len(got) == 3
    assert all(pictures is got[0] for pictures in got)
    assert got[0].shape == (1, 3, SIDE, SIDE)


def test_settings(animator, source, driving):
    settings = Settings(reference_frame=3, batch_size=2)
    moved = list(animator.animate(source, driving, settings=settings))
    again = list(animator.animate(source, driving[3:4]))
    assert abs(moved[3].astype(int) - again[0]).max() <= 1  # the reference frame gives no motion


def test_an_endless_iterator_streams(animator, source, driving):
    num_read = 0

    def camera():
        nonlocal num_read
        while True:
            num_read += 1
            yield driving[num_read % 5]

    settings = Settings(batch_size=2)
    frames = animator.animate(source, camera(), settings=settings)
    for _ in range(4):
        next(frames)
    assert num_read == 4


def test_animations_do_not_disturb_each_other(animator, source, driving):
    """Two animations run at the same time, frame by frame in turns."""
    alone = [list(animator.animate(source, frames)) for frames in (driving, driving[::-1])]
    both = [animator.animate(source, frames) for frames in (driving, driving[::-1])]
    turns = [[next(frames) for frames in both] for _ in range(5)]
    assert np.array_equal(np.swapaxes(turns, 0, 1), alone)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(reference_frame="auto"), "--reference-frame auto reads the driving frames twice"),
        (Settings(crop_driving="auto"), "--crop-driving auto reads the driving frames twice"),
    ],
)
def test_options_that_read_twice_refuse_an_iterator(animator, source, driving, settings, message):
    with pytest.raises(UserError, match=message):
        animator.animate(source, iter(driving), settings=settings)


def test_what_to_do_if_the_first_frame_is_far(animator, source, driving, monkeypatch):
    """An iterator, such as a camera's, cannot be searched for a nearer one."""
    monkeypatch.setattr("animation.animator.is_far", lambda _: True)
    for frames, remedy in (
        (driving, "try --reference-frame auto"),
        (iter(driving), "begin in the"),
    ):
        (note,) = [n for n in animator.prepare(source, frames).notes if "is far from" in n]
        assert f"; {remedy}" in note


def test_mistakes_are_reported_before_the_first_frame(animator, source, driving):
    with pytest.raises(UserError, match="source: an array of float64, 32 x 32 x 3; give uint8"):
        animator.animate(source / 255, driving)
    with pytest.raises(UserError, match="driving frames: an array of float64, 32 x 32 x 3; give"):
        animator.animate(source, driving / 255)
    with pytest.raises(UserError, match="driving frames: an array of uint8, 32 x 32; give uint8"):
        animator.animate(source, driving[..., 0])
    with pytest.raises(UserError, match="background: an array of float64, 32 x 32 x 3; give"):
        animator.animate(source, driving, source / 255)
    with pytest.raises(UserError, match="there are no driving frames"):
        animator.animate(source, [])
    with pytest.raises(UserError, match=r"--background missing.png: no such file"):
        animator.animate(source, driving, "missing.png")


def test_frame_rate_and_number(animator, media, source, driving):
    animation = animator.prepare(source, media / "driving.mp4")
    assert (animation.frame_rate, animation.num_frames) == (30, 5)
    assert animator.prepare(source, driving).num_frames == 5
    assert animator.prepare(source, iter(driving)).num_frames is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"motion": "absolut"},
        {"compose": "bogus"},
        {"batch_size": 0},
        {"reference_frame": -1},
        {"reference_frame": "last"},
        {"crop_source": "face"},
    ],
)
def test_settings_refuse_unknown_values(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


def test_transparent_as_a_path(animator, source, driving):
    frames = list(animator.animate(source, driving, Path("transparent")))
    assert frames[0].shape == (SIDE, SIDE, 4)
