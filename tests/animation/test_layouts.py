"""animate.py: columns of the layouts, saved masks, animations of test clips."""

import numpy as np
import pytest
import torch

import animate
from animation.branch_animators import frames_to_tensor
from animation.layouts import AnimatedBatch, Layout
from checkpoints.checkpoint import load
from checkpoints.weights import load_model
from datasets.build import build_source
from media.crops import Box, Paster
from media.video import open_clip
from media.visualization import to_uint8
from metrics.detectors.build import REGION_FINDERS
from modules.geometry import resize
from tests.helpers.animations import (
    CPU,
    assert_rounded_alike,
    columns,
    expected_swap,
    picture,
    pngs,
    run_to_folder,
    uint8,
    write_files,
)
from tests.helpers.detectors import Contrast, contrast
from tests.helpers.runs import call, contents, error_line, step_file

GREEN = "#00ff00"


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_run):
    return write_files(tmp_path_factory.mktemp("files"), step_file(tiny_run, 8))


@pytest.fixture
def run(files):
    def to_folder(output, *arguments, model="all"):
        return run_to_folder(files, model, output, *arguments)

    return to_folder


# Layouts


def test_side_by_side(run, tmp_path, files):
    options = ("--background", files / "other.png", "--layout", "side-by-side")
    source, driving, result = columns(run(tmp_path / "out", *options))
    frames, _, swapped = expected_swap(files, "same", "network")
    assert (source == picture(files / "source.png")).all()
    assert np.array_equal(driving, frames)
    assert_rounded_alike(result, uint8(swapped.result))


@pytest.mark.parametrize("compose", ["network", "alpha"])
def test_demo(run, tmp_path, files, compose):
    options = ("--background", files / "other.png", "--compose", compose, "--layout", "demo")
    shown = columns(run(tmp_path / "out", *options))
    frames, animated, swapped = expected_swap(files, "same", compose)
    other = np.broadcast_to(picture(files / "other.png"), frames.shape)
    source = np.broadcast_to(picture(files / "source.png"), frames.shape)
    expected = [source, frames, uint8(animated), other, uint8(swapped.base), uint8(swapped.refined)]
    if compose == "alpha":
        expected.append(uint8(swapped.result))
    assert len(shown) == len(expected)
    for column, pictures in zip(shown, expected, strict=True):
        assert_rounded_alike(column, pictures)


def test_show_masks(run, tmp_path, files):
    """More columns on the right: the masks of source, animated frame and background."""
    _, _, swapped = expected_swap(files, "same", "network")
    generator = load_model(load(files / "all.pt"), CPU).masks.mask_generator
    image = frames_to_tensor(picture(files / "source.png")[None], CPU)
    with torch.no_grad():
        masks = [generator(image), swapped.foreground_mask, swapped.background_mask]
    masks = [uint8(resize(mask, (32, 32)).expand(5, 3, -1, -1)) for mask in masks]
    background = ("--background", files / "other.png")
    for layout, options, others in (
        ("side-by-side", (), 3),
        ("side-by-side", background, 3),
        ("demo", background, 6),
    ):
        options = ("--layout", layout, *options)
        plain = columns(run(tmp_path / "plain", *options))
        shown = columns(run(tmp_path / "shown", *options, "--show-masks"))
        assert len(plain) == others
        assert np.array_equal(shown[:others], plain)
        expected = masks[: 3 if background[0] in options else 2]
        assert_rounded_alike(np.stack(shown[others:]), np.stack(expected))


# Masks as a result


@pytest.mark.parametrize("animator", ["motion", "masks"])
def test_save_masks(run, tmp_path, files, animator):
    """The masks equal the alpha channel of a transparent result; other outputs do not change."""
    choice = ("--animator", animator)
    cut = run(tmp_path / "cut", *choice, "--background", "transparent", "--save-masks")
    alpha = np.repeat(cut[..., 3:], 3, axis=3)
    assert np.array_equal(pngs(tmp_path / "cut-masks"), alpha)
    for options in ((), ("--background", files / "other.png", "--layout", "demo")):
        plain = run(tmp_path / "plain", *choice, *options)
        assert not (tmp_path / "plain-masks").exists()
        assert np.array_equal(run(tmp_path / "out", *choice, *options, "--save-masks"), plain)
        assert np.array_equal(pngs(tmp_path / "out-masks"), alpha)


def test_help_distinguishes_raw_masks_from_opacity():
    text = " ".join(animate.build_parser().format_help().split())
    assert "--show-masks add columns: the raw masks of" in text
    assert "--save-masks also write the figure's opacity, its mask feathered around" in text


def test_save_masks_beside_a_video(files, tmp_path, capsys):
    inputs = ("--source", files / "source.png", "--driving", files / "driving")
    output = tmp_path / "out.mp4"
    options = ("--save-masks", "--output", output)
    assert call(animate, "--checkpoint", files / "square.pt", *inputs, *options) == 0
    assert f"{tmp_path / 'out-masks.mp4'}: the figure's opacity" in capsys.readouterr().out
    result, masks = open_clip(output), open_clip(tmp_path / "out-masks.mp4")
    assert (masks.num_frames, masks.frame_rate) == (result.num_frames, result.frame_rate)
    frame = masks.read([0])[0]
    assert (frame[10:-10, 10:-10] > 250).all()
    assert (frame[:3] < 5).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-masks.mp4", "out.mp4"]


def test_masks_without_their_result_are_not_replaced(files, tmp_path, capsys):
    inputs = ("--source", files / "source.png", "--driving", files / "driving")
    options = ("--save-masks", "--output", tmp_path / "out.mp4")
    (tmp_path / "out-masks.mp4").write_text("mine")
    assert call(animate, "--checkpoint", files / "square.pt", *inputs, *options) == 2
    assert "out-masks.mp4 is there, but no" in error_line(capsys, "animate.py")
    assert (tmp_path / "out-masks.mp4").read_text() == "mine"
    (tmp_path / "out-masks.mp4").unlink()
    for _ in range(2):
        assert call(animate, "--checkpoint", files / "square.pt", *inputs, *options) == 0


def test_save_masks_beside_a_folder_with_a_dot_in_its_name(run, tmp_path):
    (tmp_path / "v1.2").mkdir()
    for _ in range(2):  # the second time both folders exist
        result = run(tmp_path / "v1.2", "--background", "transparent", "--save-masks")
        masks = pngs(tmp_path / "v1.2-masks")
        assert np.array_equal(masks, np.repeat(result[..., 3:], 3, axis=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1.2", "v1.2-masks"]


# Without --source and --driving


@pytest.fixture
def demo(files, tmp_path, monkeypatch):
    """A function that animates the 3 test clips of a checkpoint's data and returns the columns."""
    monkeypatch.chdir(tmp_path)

    def to_folder(*arguments, model="all"):
        content = contents(files / f"{model}.pt")
        content["config"]["data"]["puppets"]["num_test_clips"] = 3
        torch.save(content, tmp_path / "three.pt")
        options = ("--checkpoint", "three.pt", "--output", "out", *arguments)
        assert call(animate, *options) == 0
        return columns(pngs(tmp_path / "out"))

    return to_folder


@pytest.fixture
def clips(files):
    data = load(files / "all.pt").config.data
    puppets = data.puppets.model_copy(update={"num_test_clips": 3})
    return build_source(data.model_copy(update={"puppets": puppets}), "test")


def test_demo_swaps_the_background_of_a_third_clip(demo, clips):
    source, driving, animated, background, base, refined = demo()
    assert (source == clips.read(1, [0])).all()
    assert np.array_equal(driving, clips.read(0, range(4)))
    assert (background == clips.read(2, [0])).all()
    (result,) = demo("--layout", "result")
    assert np.array_equal(result, refined)
    (masked,) = demo("--layout", "result", "--animator", "masks")
    assert not np.array_equal(masked, refined)
    pictures = [animated, background, base, refined]
    assert all(not np.array_equal(a, b) for a in pictures for b in pictures if a is not b)


def test_demo_with_another_background(demo, files):
    shown = demo("--background", files / "other.png")
    assert len(shown) == 6
    assert (shown[3] == picture(files / "other.png")).all()
    source, _, _, background, *_ = demo("--background", "source")
    assert np.array_equal(source, background)
    assert len(demo("--compose", "alpha")) == 7
    assert len(demo("--background", GREEN)) == 3  # no columns of BGBase and BGRefine
    (cut,) = demo("--background", "transparent")
    assert cut.shape == (4, 32, 32, 4)


def test_demo_of_a_model_that_swaps_nothing(demo, clips):
    for model in ("no-background", "no-masks-background"):
        source, driving, result = demo(model=model)
        assert (source == clips.read(1, [0])).all()
        assert np.array_equal(driving, clips.read(0, range(4)))
        assert not np.array_equal(result, driving)


@pytest.mark.parametrize("model", ["early", "no-background"])
def test_demo_of_a_model_that_has_not_learned_to_paint(demo, model):
    """The figure is laid over the third image. Above the masks, which begin below the first row, it
    is that image itself.
    """
    shown = demo(model=model)
    assert len(shown) == 3
    third = demo()[3]
    assert np.array_equal(shown[2][:, 0], third[:, 0])
    shown = demo("--background", GREEN, model=model)
    assert (shown[2][:, 0, 0] == (0, 255, 0)).all()


def test_demo_of_a_model_without_masks(demo, monkeypatch):
    """Detectors do not know puppets: they are used if they are asked for."""
    for name in ("person", "saliency"):
        monkeypatch.setitem(REGION_FINDERS, name, Contrast)
    plain = demo(model="no-masks-background")
    assert np.array_equal(plain, demo("--layout", "side-by-side", model="no-masks-background"))
    swapped = demo("--masks", "saliency", model="no-masks-background")
    assert np.array_equal(swapped[:2], plain[:2])
    dark = contrast(plain[2]) < 0.24
    assert dark.any()
    assert np.array_equal(swapped[2][dark], demo()[3][dark])


def test_masks_animate_if_there_is_no_motion_branch(demo, run, tmp_path):
    assert np.array_equal(demo(model="no-motion"), demo("--animator", "masks"))
    by_default = run(tmp_path / "a", model="no-motion")
    assert np.array_equal(by_default, run(tmp_path / "b", "--animator", "masks"))


def test_a_transparent_result_stands_alone():
    with pytest.raises(ValueError, match="stands alone, found the layout demo"):
        Layout("demo", transparent=True)


def test_frames_are_pasted_one_at_a_time():
    """A batch of pictures of 134 megapixels took 6 GB."""
    canvas = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    paster, pasted = Paster(canvas, Box(4, 2, 8, 8)), []

    class Counting:
        def paste(self, frame):
            pasted.append(frame)
            return paster.paste(frame)

    animated = torch.rand((3, 3, 8, 8))
    driving = np.zeros((3, 8, 8, 3), np.uint8)
    batch = AnimatedBatch(driving[0], driving, animated, None, None)
    frames = Layout("result", paster=Counting()).arrange(batch)
    assert len(frames) == 3
    for number, frame in enumerate(frames, 1):
        assert len(pasted) == number
        np.testing.assert_array_equal(frame, paster.paste(to_uint8(animated)[number - 1]))
    np.testing.assert_array_equal(frames[1:][0], frames[1])
