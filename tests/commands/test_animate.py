"""animate.py: outputs, frame rate, kinds of motion, streaming.

test_animate_background.py and test_layouts.py test backgrounds and masks.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

import animate
from animation.branch_animators import animate as animate_frames
from animation.branch_animators import build_animator
from checkpoints import folder
from checkpoints.checkpoint import load
from checkpoints.weights import load_model
from media.video import open_clip
from tests.helpers.animations import CPU, pngs
from tests.helpers.media import numbered_frame, write_clip, write_frame_folder
from tests.helpers.runs import call, error_line, finish, start, step_file, wait_until

RATE = Fraction(30000, 1001)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """source.png (square), wide.png, driving.mp4 (9 frames), frames/ (5 frames)."""
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(numbered_frame(21, (32, 32))).save(folder / "source.png")
    Image.fromarray(numbered_frame(21, (30, 50))).save(folder / "wide.png")
    write_clip(folder / "driving.mp4", 9, (32, 32), RATE)
    write_frame_folder(folder / "frames", 5, (32, 32))
    return folder


@pytest.fixture
def run_animate(tiny_run, media):
    """Animate source.png by driving.mp4 with the tiny run's checkpoint."""

    def run(output, *arguments, source="source.png", driving="driving.mp4"):
        files = ("--source", media / source, "--driving", media / driving, "--output", output)
        return call(animate, "--checkpoint", step_file(tiny_run, 8), *files, *arguments)

    return run


@pytest.fixture
def animator(tiny_run):
    def build(name="motion", **options):
        model = load_model(load(step_file(tiny_run, 8)), CPU)
        return build_animator(model, CPU, name, **options)

    return build


def test_video(run_animate, tmp_path, capsys, tiny_run):
    output = tmp_path / "new" / "out.mp4"
    assert run_animate(output) == 0
    with av.open(str(output)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == RATE
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(stream)]
    assert shapes == [(32, 32, 3)] * 9
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{output}: 9 frames, {step_file(tiny_run, 8)} (step 8)"
    assert [path.name for path in output.parent.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(
    ("arguments", "name", "options"),
    [
        (("--motion", "absolute"), "motion", {"motion": "absolute"}),
        (("--adapt-scale",), "motion", {"motion": "relative", "adapt_scale": True}),
        (("--animator", "motion"), "motion", {}),
        (("--animator", "masks"), "masks", {}),
    ],
)
def test_folder_holds_the_prediction_to_the_last_bit(
    run_animate, animator, tmp_path, media, arguments, name, options
):
    assert run_animate(tmp_path / "out", *arguments, driving="frames") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"{i:05d}.png" for i in range(5)), "frame_rate.json"]
    source = np.array(Image.open(media / "source.png"))
    batches = animate_frames(animator(name, **options), source, open_clip(media / "frames"))
    expected = torch.cat([prediction for _, prediction in batches]).movedim(1, -1)
    assert np.array_equal(pngs(tmp_path / "out"), expected.mul(255).round().byte().numpy())


def test_side_by_side(run_animate, tmp_path, media):
    assert run_animate(tmp_path / "both", "--layout", "side-by-side", driving="frames") == 0
    assert run_animate(tmp_path / "alone", driving="frames") == 0
    source, driving, result = np.split(pngs(tmp_path / "both"), 3, axis=2)
    assert (source == np.asarray(Image.open(media / "source.png"))).all()
    assert np.array_equal(driving, open_clip(media / "frames").read(range(5)))
    assert np.array_equal(result, pngs(tmp_path / "alone"))


def test_kinds_of_motion(run_animate, tmp_path):
    """Relative motion starts at the source's own keypoints, absolute motion at the driving ones."""
    results = {}
    for name, arguments in {
        "relative": (),
        "absolute": ("--motion", "absolute"),
        "scaled": ("--adapt-scale",),
        "one by one": ("--batch-size", 1),
        "masks": ("--animator", "masks"),
    }.items():
        assert run_animate(tmp_path / name, *arguments) == 0
        results[name] = pngs(tmp_path / name).astype(int)
    assert np.abs(results["relative"] - results["absolute"]).max() > 0
    assert np.abs(results["relative"] - results["scaled"]).max() > 0
    assert np.abs(results["relative"] - results["masks"]).max() > 0
    assert np.abs(results["relative"] - results["one by one"]).max() <= 1  # rounding

    # If the source is the first driving frame, both kinds give the same first frame.
    for motion in ("relative", "absolute"):
        arguments = ("--motion", motion)
        assert (
            run_animate(
                tmp_path / f"own {motion}", *arguments, source="frames/frame0.png", driving="frames"
            )
            == 0
        )
    own = [pngs(tmp_path / f"own {motion}")[0].astype(int) for motion in ("relative", "absolute")]
    assert np.abs(own[0] - own[1]).max() <= 1


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_another_shape_is_announced(tiny_run, tmp_path, capsys, media, fit):
    content = torch.load(step_file(tiny_run, 8), weights_only=True)
    content["config"]["data"]["fit"] = fit
    torch.save(content, tmp_path / "c.pt")
    files = ("--source", media / "wide.png", "--driving", media / "driving.mp4")
    output = tmp_path / "out"
    layout = ("--layout", "side-by-side")
    assert (
        call(animate, "--checkpoint", tmp_path / "c.pt", *files, "--output", output, *layout) == 0
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning" not in line]
    how = {"crop": "cropped at the centre", "pad": "padded with black"}[fit]
    assert lines[0] == "networks in float32 (bf16 takes 20 times as long here) on cpu"
    assert lines[1] == f"{media / 'wide.png'}: 50 x 30 pixels, {how} to the shape of the model"
    assert len(lines) == 3  # the driving clip has the model's shape
    source = np.split(pngs(output), 3, axis=2)[0][0]
    assert (source[0].max() == 0) == (fit == "pad")


def test_same_output_again(run_animate, tmp_path):
    for driving, count in (("driving.mp4", 9), ("frames", 5)):
        assert run_animate(tmp_path / "out", driving=driving) == 0
        assert len(pngs(tmp_path / "out")) == count
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["motion", "masks"])
def test_streams(animator, name):
    """The next batch of the driving clip is read only after the result of this one is returned."""
    num_read = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal num_read
        while True:
            yield numbered_frame(num_read, (32, 32))
            num_read += 1

    batches = animate_frames(animator(name), numbered_frame(0, (32, 32)), endless(), batch_size=4)
    for done in range(1, 6):
        driving, prediction = next(batches)
        assert driving.shape == (4, 32, 32, 3)
        assert prediction.shape == (4, 3, 32, 32)
        assert num_read <= 4 * done


def test_source_is_encoded_once(animator, monkeypatch):
    moved = animator()
    calls = []
    generator = moved.branch.generator
    encode = generator.encode
    monkeypatch.setattr(generator, "encode", lambda x: (calls.append(1), encode(x))[1])
    frames = [numbered_frame(i, (32, 32)) for i in range(6)]
    assert len(list(animate_frames(moved, frames[0], frames, batch_size=2))) == 3
    assert len(calls) == 1


# Without arguments


def test_without_arguments(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("old", "new"):
        shutil.copytree(tiny_run, tmp_path / "runs" / name)
    for path in (tmp_path / "runs" / "old").rglob("*.pt"):
        os.utime(path, (1, 1))
    for step, seconds in ((4, 10), (8, 20)):
        os.utime(step_file(tmp_path / "runs" / "new", step), (seconds, seconds))
    assert call(animate) == 0
    output = "runs/new/animation.mp4"
    expected = f"{output}: 4 frames, runs/new/checkpoints/step-00000008.pt (step 8)"
    assert capsys.readouterr().out.splitlines()[-1] == expected
    clip = open_clip(output)
    assert (clip.num_frames, clip.size, clip.frame_rate) == (4, (32, 6 * 32), 25)


def test_without_arguments_and_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder, "OWN_MODEL", tmp_path / "none.safetensors")
    assert call(animate) == 2
    line = error_line(capsys, "animate.py")
    assert (
        "no checkpoint under runs/: train a model with `python train.py --config demo.yaml`" in line
    )
    assert list(tmp_path.iterdir()) == []


# Bad input


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        ({"source": "driving.mp4"}, "driving.mp4: not an image: its format is unknown"),
        ({"source": "text.png"}, "text.png: not an image: the file holds text"),
        ({"source": "missing.png"}, "missing.png: no such file"),
        ({"source": "pointer.png"}, "pointer.png: not an image: this is a git-lfs pointer"),
        ({"driving": "text.mp4"}, "text.mp4: not a video: the file holds text"),
        ({"driving": "missing.mp4"}, "missing.mp4: no such file"),
        ({"driving": "source.png"}, "source.png: not a clip but a single image"),
        ({"driving": "nothing"}, "nothing: no frames (png, jpg) in this folder"),
        ({"driving": "corrupt.mp4"}, "corrupt.mp4: "),
        ({"driving": "empty.mp4"}, "empty.mp4: "),
        ({"output": "out.avi"}, "out.avi: cannot write .avi; use .mp4, .webm, .mov, .gif"),
        ({"output": "text.mp4/out.mp4"}, "out.mp4: cannot be written"),
        ({"output": "text"}, "text: a file has this name"),
        ({"output": "mine"}, "holds 00001.png, which no earlier run wrote; choose another folder"),
        ({"output": "source.png"}, "source.png would replace --source"),
        ({"output": "driving.mp4"}, "driving.mp4 would replace --driving"),
        ({"output": "mine/../mine", "driving": "mine"}, "mine would replace --driving"),
        ({"output": "mine", "source": "mine/00001.png"}, "mine would replace --source"),
    ],
)
def test_bad_files(tiny_run, media, tmp_path, capsys, replaced, expected):
    for name in ("source.png", "driving.mp4"):
        shutil.copy(media / name, tmp_path)
    for name in ("text.png", "text.mp4", "text"):
        (tmp_path / name).write_text("hello")
    (tmp_path / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "mine").mkdir()
    shutil.copy(media / "source.png", tmp_path / "mine" / "00001.png")
    video = bytearray((media / "driving.mp4").read_bytes())
    start = video.index(b"mdat") + 4
    video[start : start + 2000] = os.urandom(2000)
    (tmp_path / "corrupt.mp4").write_bytes(bytes(video[: start + 2000]))
    with av.open(str(tmp_path / "empty.mp4"), "w") as container:
        stream = container.add_stream("libx264", 25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
    before = sorted(tmp_path.rglob("*"))
    files = {"source": "source.png", "driving": "driving.mp4", "output": "out.mp4"} | replaced
    options = [item for name, file in files.items() for item in (f"--{name}", tmp_path / file)]
    assert call(animate, "--checkpoint", step_file(tiny_run, 8), *options) == 2
    assert expected in error_line(capsys, "animate.py")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--source", "a.png"), "--source and --driving belong together"),
        (("--driving", "a.mp4"), "--source and --driving belong together"),
    ],
)
def test_half_of_a_pair(tiny_run, capsys, arguments, expected):
    assert call(animate, "--checkpoint", step_file(tiny_run, 8), *arguments) == 2
    assert expected in error_line(capsys, "animate.py")


def test_output_is_missing(tiny_run, media, capsys):
    files = ("--source", media / "source.png", "--driving", media / "driving.mp4")
    assert call(animate, "--checkpoint", step_file(tiny_run, 8), *files) == 2
    assert "--output is missing: out.mp4, or a folder" in error_line(capsys, "animate.py")


@pytest.mark.parametrize("output", [".", "..", "folder/.."])
@pytest.mark.parametrize("options", [(), ("--save-masks",)])
def test_output_without_a_name(run_animate, tmp_path, monkeypatch, capsys, output, options):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert run_animate(output, *options) == 2
    line = error_line(capsys, "animate.py")
    assert f"error: {output}: names no file or new folder; write out.mp4, or out for a" in line
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_failure_midway_leaves_the_earlier_result(run_animate, tmp_path, capsys, media):
    """The third frame of a folder is broken, which is noticed only when it is read."""
    driving = write_frame_folder(tmp_path / "frames", 4, (32, 32))
    (driving / "frame2.png").write_text("hello")
    (tmp_path / "out.mp4").write_bytes(b"earlier")
    code = run_animate(tmp_path / "out.mp4", "--batch-size", 1, driving=driving)
    assert code == 2
    assert "frame2.png: not an image: the file holds text" in error_line(capsys, "animate.py")
    assert (tmp_path / "out.mp4").read_bytes() == b"earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"frames", "out.mp4"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_half_written(tiny_run, tmp_path, media, number):
    driving = write_clip(tmp_path / "in" / "long.mp4", 2000, (32, 32))
    output = tmp_path / "new" / "out.mp4"
    files = ("--source", media / "source.png", "--driving", driving, "--output", output)
    process = start("animate.py", "--checkpoint", step_file(tiny_run, 8), *files)
    wait_until(lambda: output.parent.is_dir() and any(output.parent.iterdir()), process)
    process.send_signal(number)
    assert finish(process).code == 128 + number
    assert list(output.parent.iterdir()) == []
