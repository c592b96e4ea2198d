"""animate.py: reference frame, parts of the driving clip, crops, sound."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import animate
from animation.branch_animators import MotionAnimator
from animation.branch_animators import animate as animate_frames
from animation.reference import nearest_frame
from checkpoints.checkpoint import load
from checkpoints.weights import load_model
from media.crops import Box, Paster, cut_out
from media.images import fit_frames
from media.video import open_clip
from tests.helpers.animations import CPU, assert_rounded_alike, picture, pngs, uint8
from tests.helpers.media import (
    click_times,
    decode_sound,
    flash_times,
    frame_numbers,
    numbered_frame,
    write_clip,
    write_frame_folder,
    write_sound_clip,
)
from tests.helpers.runs import call, error_line, step_file

SIDE = 32


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """source.png, large.png (96 x 80), frames/ (6), driving.mp4 (60 frames), clicks.mp4."""
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(numbered_frame(21, (SIDE, SIDE))).save(folder / "source.png")
    noise = np.random.default_rng(0).integers(256, size=(80, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "large.png")
    write_frame_folder(folder / "frames", 6, (SIDE, SIDE))
    write_clip(folder / "driving.mp4", 60, (SIDE, SIDE), Fraction(30), gop=25)
    write_sound_clip(folder / "clicks.mp4", [20, 40], 50)
    return folder


@pytest.fixture
def run_animate(tiny_run, media):
    def run(output, *arguments, source="source.png", driving="frames"):
        files = ("--source", media / source, "--driving", media / driving, "--output", output)
        return call(animate, "--checkpoint", step_file(tiny_run, 8), *files, *arguments)

    return run


@pytest.fixture(scope="module")
def animator(tiny_run):
    model = load_model(load(step_file(tiny_run, 8)), CPU)
    return MotionAnimator(model.motion, CPU)


def expected_frames(animator, source, driving, reference=None):
    batches = animate_frames(animator, source, driving, reference=reference)
    return np.concatenate([uint8(prediction) for _, prediction in batches])


# The reference frame


@pytest.mark.parametrize("number", [0, 4])
def test_reference_frame(run_animate, tmp_path, media, animator, number):
    driving = open_clip(media / "frames").read(range(6))
    expected = expected_frames(animator, picture(media / "source.png"), driving, driving[number])
    assert run_animate(tmp_path / "out", "--reference-frame", number) == 0
    assert_rounded_alike(pngs(tmp_path / "out"), expected)


def test_the_nearest_reference_frame(run_animate, tmp_path, media, animator, capsys):
    source = picture(media / "source.png")
    driving = open_clip(media / "frames").read(range(6))
    found = nearest_frame(animator, source, driving)
    assert run_animate(tmp_path / "out", "--reference-frame", "auto") == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith(
        f"reference frame {found.index} of 6: distance {found.distance:.3f} to the source (the "
        f"first frame: {found.first_distance:.3f})"
    )
    expected = expected_frames(animator, source, driving, driving[found.index])
    assert_rounded_alike(pngs(tmp_path / "out"), expected)


def test_a_source_out_of_the_clip_is_its_own_reference(run_animate, tmp_path, media, capsys):
    source = media / "frames" / "frame3.png"
    assert run_animate(tmp_path / "out", "--reference-frame", "auto", source=source) == 0
    assert "reference frame 3 of 6: distance 0.000" in capsys.readouterr().out


def test_a_first_frame_far_off_is_announced(run_animate, tmp_path, media, capsys):
    """There is no warning if the source is the first driving frame."""
    assert run_animate(tmp_path / "out", source=media / "frames" / "frame0.png") == 0
    assert "warning" not in capsys.readouterr().out
    assert run_animate(tmp_path / "out", source="large.png") == 0
    assert "warning: the first driving frame is far from the source (d" in capsys.readouterr().out


def test_smooth_changes_little_and_keeps_the_number_of_frames(run_animate, tmp_path):
    assert run_animate(tmp_path / "rough") == 0
    assert run_animate(tmp_path / "smooth", "--smooth") == 0
    rough, smooth = (pngs(tmp_path / name).astype(int) for name in ("rough", "smooth"))
    assert rough.shape == smooth.shape
    assert np.array_equal(rough[0], smooth[0])
    assert 0 < abs(rough - smooth).mean() < 20


# Parts of the clip, and crops


def test_start_and_end(run_animate, tmp_path):
    output = tmp_path / "out.mp4"
    arguments = ("--start", "0:01.0", "--end", "1.5", "--layout", "side-by-side")
    assert run_animate(output, *arguments, driving="driving.mp4") == 0
    clip = open_clip(output)
    assert (clip.num_frames, clip.frame_rate) == (15, 30)
    driving = clip.read(range(15))[:, :, SIDE : 2 * SIDE]
    assert frame_numbers(driving) == list(range(30, 45))


@pytest.mark.parametrize("which", ["source", "driving"])
def test_crop(run_animate, tmp_path, media, which):
    """It equals cropping beforehand; a box of another shape is widened around its middle."""
    large = picture(media / "large.png")
    box, wide = Box(20, 10, 40, 40), "20,20,40,20"
    cropped = cut_out(large, box, (SIDE, SIDE))
    Image.fromarray(cropped).save(tmp_path / "cropped.png")
    frames = tmp_path / "frames"
    for name, content in (("large", large), ("small", cropped)):
        (frames / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(content).save(frames / name / f"{number}.png")
    if which == "source":
        assert run_animate(tmp_path / "a", "--crop-source", wide, source="large.png") == 0
        assert run_animate(tmp_path / "b", source=tmp_path / "cropped.png") == 0
    else:
        assert run_animate(tmp_path / "a", "--crop-driving", wide, driving=frames / "large") == 0
        assert run_animate(tmp_path / "b", driving=frames / "small") == 0
    assert np.array_equal(pngs(tmp_path / "a"), pngs(tmp_path / "b"))


def test_crop_auto_stays_in_the_picture(run_animate, tmp_path, capsys):
    assert run_animate(tmp_path / "out", "--crop", "auto", source="large.png") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert "large.png: " in lines[0]
    assert "cropped" in lines[0]
    assert "frames: " in lines[1]
    assert "cropped" in lines[1]
    assert pngs(tmp_path / "out").shape == (6, SIDE, SIDE, 3)


@pytest.mark.parametrize("crop", ["none", "20,10,40,40"])
def test_paste_back(run_animate, tmp_path, media, crop):
    large = picture(media / "large.png")
    arguments = ("--crop-source", crop)
    assert run_animate(tmp_path / "small", *arguments, source="large.png") == 0
    assert run_animate(tmp_path / "out", *arguments, "--paste-back", source="large.png") == 0
    box = Box(8, 0, 80, 80) if crop == "none" else Box(20, 10, 40, 40)
    paster = Paster(large, box)
    expected = [paster.paste(frame) for frame in pngs(tmp_path / "small")]
    result = pngs(tmp_path / "out")
    assert np.array_equal(result, expected)
    left, top, width, height = (int(number) for number in box)
    outside = np.ones((80, 96), bool)
    outside[top : top + height, left : left + width] = False
    assert (result[:, outside] == large[outside]).all()
    assert (result[:, ~outside] != large[~outside]).any()


def test_a_picture_that_is_not_square_is_cropped_as_announced(run_animate, tmp_path, media):
    large = picture(media / "large.png")
    Image.fromarray(fit_frames(large[None], (SIDE, SIDE), "crop")[0]).save(tmp_path / "small.png")
    assert run_animate(tmp_path / "a", source="large.png") == 0
    assert run_animate(tmp_path / "b", source=tmp_path / "small.png") == 0
    assert np.array_equal(pngs(tmp_path / "a"), pngs(tmp_path / "b"))


# Sound


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_sound_is_cut_with_the_clip(run_animate, tmp_path, media, suffix, capsys):
    """In the part from 0.6 s to 1.8 s the clicks at 0.8 s and 1.6 s are at 0.2 s and 1 s."""
    output = tmp_path / f"out{suffix}"
    times = ("--start", "0.6", "--end", "1.8")
    layout = ("--layout", "side-by-side")
    assert run_animate(output, *times, *layout, driving="clicks.mp4") == 0
    assert "30 frames, with sound" in capsys.readouterr().out
    assert click_times(output) == pytest.approx([0.2, 1.0], abs=0.01)
    samples, sample_rate = decode_sound(output)
    assert len(samples) / sample_rate == pytest.approx(1.2, abs=0.03)
    assert open_clip(output).num_frames == 30


@pytest.fixture(scope="module")
def paused(tmp_path_factory):
    """A clip of 25 frames/s with dropped frames; it flashes and clicks at 0.44 s and 1.92 s."""
    path = tmp_path_factory.mktemp("paused") / "paused.mp4"
    times = [*range(10), 11, 30, 31, 32, *range(40, 52)]
    return write_sound_clip(path, [times.index(11), times.index(48)], times=times)


@pytest.mark.parametrize(
    ("arguments", "events", "num_frames"),
    [((), [0.44, 1.92], 26), (("--start", "0.41", "--end", "1.95"), [0, 1.48], 13)],
)
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_frames_with_pauses_keep_step_with_the_sound(
    run_animate, tmp_path, paused, suffix, arguments, events, num_frames
):
    output = tmp_path / f"out{suffix}"
    options = ("--layout", "side-by-side", "--save-masks", "--smooth", *arguments)
    assert run_animate(output, *options, driving=paused) == 0
    assert click_times(output) == pytest.approx(events, abs=0.0015)
    masks = tmp_path / f"out-masks{suffix}"
    shown = []
    for path in (output, masks):
        with av.open(str(path)) as container:
            assert container.streams.video[0].average_rate < 26
            shown.append([frame.time for frame in container.decode(video=0)])
    assert shown[0] == shown[1]
    assert len(shown[0]) == num_frames
    driving = np.stack([frame[:, SIDE : 2 * SIDE] for frame in open_clip(output)])
    flashes = [shown[0][n] for n in np.flatnonzero(driving.mean(axis=(1, 2, 3)) > 128)]
    assert flashes == pytest.approx(events, abs=0.0015)


def test_a_folder_of_frames_with_pauses_is_evenly_spaced(run_animate, tmp_path, paused, capsys):
    options = ("--layout", "side-by-side")
    assert run_animate(tmp_path / "out", *options, driving=paused) == 0
    rate = float(open_clip(paused).frame_rate)
    assert (
        f"{paused}: its frames are not evenly spaced; {tmp_path / 'out'} gets {rate:.4g} a second, "
        "so some are repeated and some are left out"
    ) in capsys.readouterr().out.splitlines()
    frames = open_clip(tmp_path / "out")
    driving = np.stack([frame[:, SIDE : 2 * SIDE] for frame in frames])
    flashes = np.flatnonzero(driving.mean(axis=(1, 2, 3)) > 128) / float(frames.frame_rate)
    assert any(0.44 <= time < 1.2 for time in flashes)  # shown until the pause ends
    assert not any(time < 0.44 for time in flashes)


def test_sound_of_another_file(run_animate, tmp_path, media):
    """It starts at its beginning, wherever the driving clip starts."""
    output = tmp_path / "out.mp4"
    arguments = ("--start", "1", "--end", "2", "--audio", media / "clicks.mp4")
    assert run_animate(output, *arguments, driving="driving.mp4") == 0
    assert click_times(output) == pytest.approx([0.8], abs=0.01)
    assert flash_times(media / "clicks.mp4")[0] == pytest.approx(0.8)


def test_a_colon_in_names(run_animate, tmp_path, media, monkeypatch):
    """FFmpeg would take the part before a colon for a protocol."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(media / "clicks.mp4", "12:30 talk.mp4")
    talk = Path("12:30 talk.mp4")
    assert run_animate("12:31 out.mp4", "--audio", talk, driving=tmp_path / talk) == 0
    assert click_times(tmp_path / "12:31 out.mp4") == pytest.approx([0.8, 1.6], abs=0.01)
    assert run_animate("1:2.webm", "--driving", talk) == 0  # the last --driving counts
    assert open_clip(tmp_path / "1:2.webm").num_frames == 50


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("out.mp4", ("--audio", "none")), ("out.gif", ()), ("out", ()), ("silent.mp4", ())],
)
def test_no_sound(run_animate, tmp_path, name, arguments):
    driving = "driving.mp4" if name == "silent.mp4" else "clicks.mp4"
    assert run_animate(tmp_path / name, "--end", "0.2", *arguments, driving=driving) == 0
    if name != "out":
        with av.open(str(tmp_path / name)) as container:
            assert [stream.type for stream in container.streams] == ["video"]


# Bad input


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--reference-frame 6", "--reference-frame 6: {media}/frames has 6 frames, counted from 0"),
        ("--reference-frame last", "--reference-frame last: give first, auto, or a number"),
        ("--reference-frame 2 --motion absolute", "--reference-frame is for relative motion"),
        (
            "--reference-frame 2 --animator masks",
            "--reference-frame belongs to the animator motion",
        ),
        ("--start 1:70", "--start 1:70: not a time"),
        ("--end soon", "--end soon: not a time; write seconds (12.5), 1:02.5 or 0:01:02"),
        ("--start 9", "frames: lasts 0.24 s, cannot start at 9 s"),
        ("--crop 1,2,3", "--crop 1,2,3: not four numbers; write left,top,width,height"),
        (
            "--crop-driving 40,0,9,9",
            "--crop, --crop-driving 40,0,9,9: outside of the picture,",
        ),
        ("--paste-back --layout side-by-side", "--layout side-by-side: --paste-back gives frames"),
        ("--paste-back --background #0f0", "--paste-back keeps what surrounds the source"),
        ("--audio missing.mp3 --output o.mp4", "--audio missing.mp3: cannot be read as sound"),
        ("--audio {media}/driving.mp4 --output o.mp4", "driving.mp4: the file has no sound; give"),
        ("--audio {media}/clicks.mp4 --output o.gif", "o.gif has no sound; write .mp4 or .webm"),
    ],
)
def test_bad_input(run_animate, tmp_path, monkeypatch, capsys, media, arguments, expected):
    monkeypatch.chdir(tmp_path)
    options = arguments.format(media=media).split()
    output = ["out"] if "--output" not in options else [options[options.index("--output") + 1]]
    assert run_animate(output[0], *options) == 2
    assert expected.format(media=media) in error_line(capsys, "animate.py")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "name"), [("--source", "source.png"), ("--driving", "frames/frame0.png")]
)
def test_the_largest_picture(run_animate, media, tmp_path, capsys, option, name):
    """--max-pixels lowers and raises the limit; a refused picture leaves no output."""
    other = {"source": "small.png"} if option == "--driving" else {}
    Image.fromarray(numbered_frame(21, (SIDE - 1, SIDE - 1))).save(media / "small.png")
    most = SIDE * SIDE
    assert run_animate(tmp_path / "out.mp4", "--max-pixels", most - 1, **other) == 2
    line = error_line(capsys, "animate.py")
    assert f"{media / name}: a picture of {SIDE} x {SIDE} pixels, 1,024 in all" in line
    assert "at most 1,023 are read; if you trust the file, raise the limit with --max-" in line
    assert list(tmp_path.iterdir()) == []
    assert run_animate(tmp_path / "out.mp4", "--max-pixels", most, **other) == 0
