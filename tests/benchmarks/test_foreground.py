"""benchmarks/foreground.py: scores by hand, and the table of a tiny run."""

import pytest
import torch

from benchmarks import foreground
from benchmarks.foreground import score
from common.cli import run_entry_point
from tests.helpers.animations import without
from tests.helpers.runs import error_line, step_file

SOURCES = ("dense_motion", "mask_generator")


def run(*arguments):
    argv = [*map(str, arguments), "--device", "cpu"]
    return run_entry_point(foreground.main, foreground.build_parser(), argv)


def test_scores_by_hand():
    # Seven of ten foreground pixels lie on the figure of 16; the first pixels are most occluded.
    weight = torch.ones(2, 1, 4, 8)
    weight[0, 0, 0] = 0.2
    weight[0, 0, 3, :2] = 0.2
    occlusion = torch.linspace(0, 1, 32).view(1, 1, 4, 8).expand(2, -1, -1, -1)
    truth = torch.zeros(2, 1, 4, 8, dtype=torch.bool)
    truth[:, :, :2] = True
    truth[0, 0, 0, 0] = False  # where the first pixel is cut
    truth[0, 0, 2, 0] = True
    scores = score(weight, occlusion, truth, threshold=0.5)
    assert scores["iou"].tolist() == pytest.approx([7 / 19, 0])
    assert scores["on_figure"][0].item() == pytest.approx(2 / 3)  # three of ten are cut
    assert scores["on_figure"][1].isnan()  # nothing is cut
    assert scores["of_frame"].tolist() == [0.5, 0.5]
    assert score(weight, occlusion, truth, threshold=0.1)["iou"].tolist() == [0, 0]


def test_table(tiny_run, capsys):
    assert run("--checkpoint", step_file(tiny_run, 8), "--num-clips", 2, "--num-frames", 2) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["split", "foreground", "threshold", "iou", "on_figure", "of_frame"]
    assert [row[:2] for row in cells[2::9]] == [
        [split, source] for split in ("train", "test") for source in SOURCES
    ]
    assert len(cells) == 2 + 2 * 2 * 9
    of_frame = {(row[0], row[5]) for row in cells[2:]}
    assert (
        len(of_frame) == 2
    )  # a number for each split, the same for all foregrounds and thresholds


def test_without_an_occlusion_map(tiny_run, tmp_path, capsys):
    path = tmp_path / "masks.pt"
    torch.save(without(step_file(tiny_run, 8), "motion"), path)
    assert run("--checkpoint", path) == 2
    line = error_line(capsys, "python -m benchmarks.foreground")
    assert "masks.pt: has no occlusion map, or no motion of the background; train a motion" in line
