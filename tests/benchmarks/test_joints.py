"""benchmarks/joints.py: the regression by made-up movements, tables and reports of a tiny run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import joints
from benchmarks.joints import PARTS, Movements, measure, side_by_side
from common.cli import run_entry_point
from tests.helpers.animations import without
from tests.helpers.runs import contents, error_line, step_file

SMALL = ("--num-clips", 4, "--num-frames", 3)


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
    assert run("--checkpoint", step_file(tiny_run, 8), *SMALL) == 0
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


def made_up(name, ratio):
    """A report in which each joint moves by 4 pixels; the ratios of the legs are .1 higher."""
    ratios = {
        joint: ratio + (0.1 if part == "legs" else 0)
        for part, of_part in PARTS.items()
        for joint in of_part
    }
    return {
        "name": name,
        "joints": {
            joint: {"movement": 4.0, "error": 4 * value, "ratio": value}
            for joint, value in ratios.items()
        },
        "mean_ratios": {"trunk": ratio, "arms": ratio, "legs": ratio + 0.1},
    }


def test_reports_side_by_side():
    lines = side_by_side([made_up("FOMM", 0.5), made_up("FOMM with all", 0.25)]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["joint", "movement", "FOMM", "FOMM with all"]
    assert cells[2] == ["hips", "4.00", "0.50", "0.25"]
    assert ["left foot", "4.00", "0.60", "0.35"] in cells
    assert cells[-3:] == [
        ["mean of trunk", "", "0.50", "0.25"],
        ["mean of arms", "", "0.50", "0.25"],
        ["mean of legs", "", "0.60", "0.35"],
    ]
    assert len(cells) == 2 + 11 + 3


@pytest.fixture
def two_runs(tiny_run, tmp_path, monkeypatch):
    """Checkpoints of two runs, of which the second has other weights; the paths are relative."""
    monkeypatch.chdir(tmp_path)
    for run_name, step in (("first", 8), ("second", 4)):
        folder = tmp_path / "runs" / run_name / "checkpoints"
        folder.mkdir(parents=True)
        shutil.copyfile(step_file(tiny_run, step), folder / "best.pt")
    return [f"runs/{run_name}/checkpoints/best.pt" for run_name in ("first", "second")]


def test_several_checkpoints(two_runs, tmp_path, capsys):
    first, second = two_runs
    both = ("--checkpoint", first, "--checkpoint", second)
    assert run(*both, "--output", "out/joints.json", *SMALL) == 0
    reports = json.loads((tmp_path / "out/joints.json").read_text())
    assert [report["name"] for report in reports] == ["first", "second"]
    assert [report["checkpoint"] for report in reports] == two_runs
    assert [report["step"] for report in reports] == [8, 4]
    for report in reports:
        assert (report["split"], report["image_size"]) == ("test", [32, 32])
        assert (report["num_clips"], report["num_frames"]) == (2, 3)
        for numbers in report["joints"].values():
            assert numbers["ratio"] == pytest.approx(numbers["error"] / numbers["movement"])
        ratios = [report["joints"][name]["ratio"] for name in PARTS["arms"]]
        assert report["mean_ratios"]["arms"] == pytest.approx(sum(ratios) / 4)
    movements = [[n["movement"] for n in report["joints"].values()] for report in reports]
    assert movements[0] == movements[1]
    assert reports[0]["mean_ratios"] != reports[1]["mean_ratios"]
    printed = capsys.readouterr().out
    assert printed.count("ratio: trunk ") == 2
    assert side_by_side(reports) in printed
    assert printed.endswith("out/joints.json\n")


def test_given_names_and_an_absolute_path(two_runs, tmp_path):
    absolute = str(tmp_path / two_runs[0])
    arguments = ("--checkpoint", absolute, "--names", "FOMM with all", "--output", "joints.json")
    assert run(*arguments, *SMALL) == 0
    (report,) = json.loads((tmp_path / "joints.json").read_text())
    assert (report["name"], report["checkpoint"]) == ("FOMM with all", absolute)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--names", "one"), "--names: 1 names for 2 checkpoints; give one for each"),
        (("--names", "one", "one"), "second/checkpoints/best.pt: 'one' names two columns of the"),
        (("--names", "joint", "one"), "first/checkpoints/best.pt: 'joint' names two columns"),
    ],
)
def test_names_that_do_not_fit(two_runs, capsys, arguments, expected):
    first, second = two_runs
    assert run("--checkpoint", first, "--checkpoint", second, *arguments) == 2
    assert expected in error_line(capsys, "python -m benchmarks.joints")


def test_other_puppets_are_not_put_into_the_same_table(two_runs, capsys):
    first, second = two_runs
    content = contents(second)
    content["config"]["data"]["puppets"]["motion_scale"] = 1.5
    torch.save(content, second)
    assert run("--checkpoint", first, "--checkpoint", second, "--output", "joints.json") == 2
    line = error_line(capsys, "python -m benchmarks.joints")
    assert f"{second}: its puppets are not those of {first}" in line
    assert "(data.puppets.motion_scale 1.5, not 1.0); measure it by a command of its own" in line


def test_a_checkpoint_in_the_working_folder_gives_its_own_name():
    names = joints.choose_names([Path("mine.pt"), Path("runs/a/checkpoints/b.pt")], None)
    assert names == ["mine", "a"]
