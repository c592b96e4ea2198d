"""benchmarks/matting.py: the rim by hand, and the table of a tiny run."""

import pytest
import torch
from torch.testing import assert_close

from benchmarks import matting
from tests.helpers.runs import call, contents, error_line, step_file


def test_rim_of_what_is_left():
    """A quarter of the old background is left in the band; errors elsewhere do not count."""
    inside = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    inside[..., 16:] = True
    band = matting.edge_band(inside)
    assert band[0, 0].any(dim=0).nonzero().flatten().tolist() == [15, 16]
    change = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    error = torch.where(band, 0.25 * change, torch.ones_like(change))
    assert_close(matting.rim_share(error, change, band), torch.tensor([0.25]))
    assert_close(matting.rim_share(0 * change, change, band), torch.zeros(1))
    assert_close(matting.rim_share(change, change, band), torch.ones(1))


def test_band_grows_with_the_frame():
    inside = torch.zeros(1, 1, 96, 96, dtype=torch.bool)
    inside[..., 48:] = True
    columns = matting.edge_band(inside)[0, 0].any(dim=0).nonzero().flatten().tolist()
    assert columns == [45, 46, 47, 48, 49, 50]


def test_table(tiny_run, capsys):
    path = step_file(tiny_run, 8)
    assert call(matting, "--checkpoint", path, "--num-clips", 3, "--num-frames", 1) == 0
    lines = capsys.readouterr().out.splitlines()
    titles, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    table = [dict(zip(titles, row, strict=True)) for row in rows]
    assert {"model", "true"} <= {row["masks"] for row in table}
    for row in table:
        if row["masks"] == "true":
            assert float(row["mask_iou"]) == pytest.approx(1, abs=0.01)
    (best,) = [
        row
        for row in table
        if (row["frames"], row["masks"], row["background"], row["edge"])
        == ("rendered", "true", "other", "clean")
    ]
    assert abs(float(best["rim"])) < 0.05
    assert float(best["swap_gain_db"]) > 20


def test_clips_are_refused(tiny_run, tmp_path, capsys):
    content = contents(step_file(tiny_run, 8))
    content["config"]["data"]["kind"] = "clips"
    content["config"]["data"]["root"] = "data"
    torch.save(content, tmp_path / "clips.pt")
    assert call(matting, "--checkpoint", tmp_path / "clips.pt") == 2
    assert "trained on clips, whose true figures are unknown" in error_line(
        capsys, "python -m benchmarks.matting"
    )
