"""benchmarks/faults.py: two kills and a full disk in one state; it notices what is lost."""

import json
import shutil

import pytest
import torch

from benchmarks import faults
from common.cli import run_entry_point
from tests.helpers.runs import contents, step_file


def run(*arguments):
    return run_entry_point(faults.main, faults.build_parser(), [*map(str, arguments)])


def test_nothing_is_lost(tmp_path, capsys):
    output = tmp_path / "faults.json"
    arguments = ("--kills", 2, "--disks", 1, "--states", "motion", "--seed", 1, "--no-files")
    assert run(*arguments, "--output", output) == 0
    kills, disks = json.loads(output.read_text())
    assert (kills["kind"], kills["state"], kills["num_tried"], kills["lost"]) == (
        *("kills", "motion", 2),
        [],
    )
    assert kills["num_runs"] >= 1
    assert disks["lost"] == []
    assert disks["num_tried"] == 1
    assert "| kills" in capsys.readouterr().out


def flip(folder):
    content = contents(step_file(folder, faults.NUM_STEPS))
    weight = content["networks"]["generator"]["first.conv.weight"]
    weight.view(torch.int32)[0, 0, 0, 0] ^= 1
    torch.save(content, step_file(folder, faults.NUM_STEPS))


def repeat_a_line(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join([*lines, lines[-1]]))


LOSSES = {
    "step-00000012.pt differs": flip,
    "best.pt is missing": lambda folder: (folder / "checkpoints" / "best.pt").unlink(),
    "metrics.jsonl: ": repeat_a_line,
    "files: ": lambda folder: (folder / ".half.tmp").touch(),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return faults.run_undisturbed("motion", tmp_path_factory.mktemp("faults")).folder


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_noticed(tmp_path, undisturbed, loss):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    assert faults.compare(folder, undisturbed) == []
    LOSSES[loss](folder)
    found = faults.compare(folder, undisturbed)
    assert any(reason.startswith(f"run: {loss}") for reason in found)
