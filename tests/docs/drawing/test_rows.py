"""docs/drawing/rows.py: the columns are the finished rows, and their pictures the predictions."""

import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from animation.branch_animators import MotionAnimator, frames_to_tensor
from benchmarks.ablation import REPORT_FILE
from checkpoints.folder import step_path
from common.cli import run_entry_point
from datasets.build import build_source
from media.visualization import to_uint8
from tests.helpers.lively import kind_config, lively_model, write_checkpoint

pytest.importorskip("matplotlib")

from docs.drawing import rows

CPU = torch.device("cpu")
SECTIONS = ("masks=null", "background=null")


def write_row(folder, row, kind, *overrides):
    """A finished row, with seed 0."""
    path = step_path(folder / f"{row}-0", 8)
    path.parent.mkdir(parents=True)
    write_checkpoint(path, kind_config(kind, *SECTIONS, *overrides))
    (folder / f"{row}-0" / REPORT_FILE).write_text("{}")


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    """Two finished rows, and one that is not."""
    folder = tmp_path_factory.mktemp("ablation")
    write_row(folder, "monkey-net", "monkey_net")
    write_row(folder, "fomm", "fomm")
    shutil.copytree(folder / "fomm-0", folder / "unet-0")
    (folder / "unet-0" / REPORT_FILE).unlink()
    return folder


def call(*arguments):
    return run_entry_point(rows.main, rows.build_parser(), [str(a) for a in arguments])


def picture(axis):
    (image,) = axis.images
    return np.asarray(image.get_array())


def test_same_frame_by_every_finished_row(ablation):
    runs = rows.load_rows(ablation, 0)
    assert list(runs) == ["fomm", "monkey-net"]  # in the order of ROWS, without the unfinished one
    clips = build_source(runs["fomm"].config.data, "test")
    models = {row: run.model for row, run in runs.items()}
    figure = rows.draw_rows(models, clips, num_clips=2)
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert titles == ["source", "driving", "fomm", "monkey-net"]
    for clip in range(2):
        source, driving, *predictions = figure.axes[4 * clip : 4 * clip + 4]
        frames = clips.read(clip, [0, clips.num_frames(clip) // 2])
        assert_array_equal(picture(source), frames[0])
        assert_array_equal(picture(driving), frames[1])
        images = frames_to_tensor(frames, CPU)
        for axis, kind in zip(predictions, ("fomm", "monkey_net"), strict=True):
            branch = lively_model(kind_config(kind, *SECTIONS)).motion
            with torch.inference_mode():
                animator = MotionAnimator(branch, CPU, motion="absolute")
                expected = animator.start(images[:1])(images[1:])
            assert_array_equal(picture(axis), to_uint8(expected)[0])


def test_command(ablation, tmp_path, capsys):
    path = tmp_path / "sheet.png"
    assert call("--runs", ablation, "--num-clips", 1, "--output", path) == 0
    with Image.open(path) as image:
        assert image.size[0] > 4 * image.size[1] / 1.5  # four pictures, 64 x 32, side by side
    assert str(path) in capsys.readouterr().out


def test_a_folder_without_a_finished_row(ablation, tmp_path, capsys):
    assert call("--runs", ablation, "--seed", 7, "--output", tmp_path / "sheet.png") == 2
    assert "no finished row of seed 7 in it" in capsys.readouterr().err


def test_rows_of_other_data(ablation, tmp_path, capsys):
    shutil.copytree(ablation / "fomm-0", tmp_path / "fomm-0")
    write_row(tmp_path, "x2face", "x2face", "data.puppets.seed=1")
    assert call("--runs", tmp_path, "--output", tmp_path / "sheet.png") == 2
    assert "x2face-0: trained on other data than" in capsys.readouterr().err
