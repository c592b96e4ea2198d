"""benchmarks/joints.py: the regression by made-up movements, and the table of a tiny run."""

import numpy as np
import pytest
import torch

from benchmarks import joints
from benchmarks.joints import PARTS, Movements, measure
from common.cli import run_entry_point
from tests.helpers.animations import without
from tests.helpers.runs import error_line, step_file


def run(*arguments):
    argv = [*map(str, arguments), "--device", "cpu"]
    return run_entry_point(joints.main, joints.build_parser(), argv)


def movements(seed, known):
    """Two keypoints, and three joints of which the first `known` follow them linearly."""
    rng = np.random.default_rng(seed)
    keypoints = rng.normal(size=(4000, 4))
    linear = np.arange(24).reshape(4, 6) % 5 - 2.0
    moved = (keypoints @ linear).reshape(-1, 3, 2)
    moved[:, known:] = rng.normal(size=moved[:, known:].shape)
    return Movements(keypoints, moved)


def test_joints_that_follow_the_keypoints_are_found_and_others_are_not():
    test = movements(1, known=2)
    error = measure(movements(0, known=2), test)
    assert error[:2].max() < 1e-3
    distance = np.linalg.norm(test.joints[:, 2], axis=-1).mean()
    assert error[2] / distance == pytest.approx(1, abs=0.02)


def test_a_shift_of_all_training_frames_is_kept():
    """The map has a constant: joints that always move by 3 pixels are known without keypoints."""
    keypoints = np.zeros((10, 4))
    always = Movements(keypoints, np.full((10, 1, 2), 3.0))
    assert measure(always, always)[0] < 1e-3


def test_table(tiny_run, capsys):
    assert run("--checkpoint", step_file(tiny_run, 8), "--num-clips", 4, "--num-frames", 3) == 0
    *lines, empty, last = capsys.readouterr().out.strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["joint", "movement", "error", "ratio"]
    assert {name for names in PARTS.values() for name in names} == {row[0] for row in cells[2:]}
    for _, movement, error, ratio in cells[2:]:
        assert float(ratio) == pytest.approx(float(error) / float(movement), abs=0.3)
    assert empty == ""
    assert last.startswith("ratio: trunk ")


def test_without_keypoints(tiny_run, tmp_path, capsys):
    path = tmp_path / "masks.pt"
    torch.save(without(step_file(tiny_run, 8), "motion"), path)
    assert run("--checkpoint", path) == 2
    line = error_line(capsys, "python -m benchmarks.joints")
    assert "masks.pt: has no keypoints; give a checkpoint of demo.yaml" in line
