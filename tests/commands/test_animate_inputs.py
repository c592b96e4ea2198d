"""animate.py with files from phones, recorders and the web that earlier versions could not read."""

import shutil

import av
import numpy as np
import pytest

import animate
from media.video import open_clip
from tests.helpers.media import decode_sound
from tests.helpers.runs import call, step_file
from tests.helpers.shared import SHARED

SIDE = 32  # side of the tiny run's frames


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working folder, with a copy of each file."""
    if not (SHARED / "inputs").is_dir():
        pytest.skip("no such files here")
    monkeypatch.chdir(tmp_path)
    for path in (SHARED / "inputs").iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


@pytest.fixture
def run(tiny_run):
    def run(source, driving, *arguments):
        inputs = ("--source", source, "--driving", driving, "--output", "out.mp4")
        return call(animate, "--checkpoint", step_file(tiny_run, 8), *inputs, *arguments)

    return run


def first_flash(path, left, right):
    """Time of the first frame whose columns from `left` to `right` are bright, in seconds."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.to_ndarray(format="gray")[:, left:right].mean() > 128:
                return frame.time
    raise AssertionError("it never flashes")


def first_beep(path):
    samples, sample_rate = decode_sound(path)
    return np.flatnonzero(abs(samples) > 0.05)[0] / sample_rate


def test_a_flash_and_a_beep_stay_together(place, run):
    """The clip is from a phone that drops frames; its part from 1 s to 4 s is animated."""
    source = place / "vfr-flash-beep.mp4"
    options = ("--start", "1", "--end", "4", "--layout", "side-by-side")
    assert run("base.png", source.name, *options) == 0
    flash = first_flash(place / "out.mp4", SIDE, 2 * SIDE)  # the driving frame, in the middle
    assert flash == pytest.approx(first_flash(source, 0, 64) - 1, abs=1e-3)
    beep = first_beep(place / "out.mp4")
    assert beep - flash == pytest.approx(first_beep(source) - first_flash(source, 0, 64), abs=5e-3)


def all_samples(path):
    """All samples of a file, regardless of the times that it states."""
    to_float = av.AudioResampler("fltp", "mono")
    with av.open(str(path)) as container:
        frames = [
            piece for frame in container.decode(audio=0) for piece in to_float.resample(frame)
        ]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), frames[0].sample_rate


def test_sound_that_does_not_fit_mp4_is_encoded_again(place, run):
    assert run("base.png", "wma-sound.avi") == 0
    samples, sample_rate = all_samples(place / "out.mp4")
    expected, expected_rate = all_samples(place / "wma-sound.avi")
    assert len(samples) / sample_rate == pytest.approx(len(expected) / expected_rate, abs=0.1)
    assert np.std(samples) == pytest.approx(np.std(expected), rel=0.1)


def test_a_name_with_a_colon(place, run):
    (place / "colon-in-name.mp4").rename(place / "12:30 talk.mp4")
    assert run("base.png", "12:30 talk.mp4") == 0
    assert open_clip("out.mp4").num_frames == open_clip("12:30 talk.mp4").num_frames


@pytest.mark.parametrize("name", ["photo.webp", "e.heic"])
def test_pictures_of_phones_and_of_the_web(place, run, name):
    if name.endswith(".heic"):
        pytest.importorskip("pillow_heif")
    assert run(name, "colon-in-name.mp4") == 0
