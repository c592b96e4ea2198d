"""benchmarks/keypoints.py: distances, jitter and delay by hand, and the tables of a tiny run."""

import pytest
import torch

from benchmarks import keypoints
from benchmarks.keypoints import (
    delay_of,
    distances_between_clips,
    distances_within_clips,
    jitter,
)
from common.cli import run_entry_point
from tests.helpers.animations import without
from tests.helpers.media import write_clip
from tests.helpers.runs import error_line, step_file


def run(*arguments):
    argv = [*map(str, arguments), "--device", "cpu"]
    return run_entry_point(keypoints.main, keypoints.build_parser(), argv)


def test_jitter_by_hand():
    """The path steps by 1, 1 and -2 in x: its second differences are 0 and 3, and 0 in y."""
    path = torch.tensor([0.0, 1.0, 2.0, 0.0])[:, None, None] * torch.tensor([1.0, 0.0])
    assert jitter(path) == pytest.approx(128 * (0 + 3) / 4)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_delay_of_a_delayed_path(delay):
    times = torch.arange(40.0)
    path = torch.sin(times / 5)[:, None, None].expand(-1, 3, 2)
    late = torch.sin((times - delay) / 5)[:, None, None].expand(-1, 3, 2)
    assert delay_of(path, late) == pytest.approx(delay, abs=1e-6)


def test_pairs():
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    clips = [torch.stack([square, 3 * square, square + 1]), torch.stack([square, square])]
    # The place and the size of a figure do not matter.
    assert distances_within_clips(clips) == pytest.approx([0.0] * 4, abs=1e-6)
    assert len(distances_between_clips(clips)) == 6


def test_tables(tiny_run, capsys, tmp_path):
    for name in ("a", "b"):
        write_clip(tmp_path / "data" / "test" / f"{name}.mp4", 9, (32, 32))
    assert run("--checkpoint", step_file(tiny_run, 8), "--data-root", tmp_path / "data") == 0
    lines = capsys.readouterr().out.splitlines()
    one, two = ([float(cell) for cell in line.split("|")[2:-1]] for line in lines if "clip" in line)
    assert one == sorted(one)  # they are quantiles
    assert len(one) == len(two) == 4
    assert lines[-1].startswith("jitter ")


def test_bad_input(tiny_run, capsys, tmp_path):
    assert run("--checkpoint", step_file(tiny_run, 8)) == 2
    assert "a clip has no more than 6 frames" in error_line(
        capsys, "python -m benchmarks.keypoints"
    )
    torch.save(without(step_file(tiny_run, 8), "motion"), tmp_path / "masks.pt")
    assert run("--checkpoint", tmp_path / "masks.pt") == 2
    line = error_line(capsys, "python -m benchmarks.keypoints")
    assert "masks.pt: has no motion branch with keypoints" in line
