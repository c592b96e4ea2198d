"""benchmarks/animate.py on tiny networks: its rows, which all make the same predictions."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import animate, whole_clips
from benchmarks.animate import stage_rows
from benchmarks.animation_models import AS_PUBLISHED, plain_loop
from branches.model import Model
from common import speed_trial
from common.cli import run_entry_point
from tests.helpers.factories import noise_inputs, tiny_overrides
from tests.helpers.lively import KINDS, kind_config
from tests.helpers.runs import call, error_line
from tests.helpers.tiny_kinds import tiny_kind

SMALL = (*tiny_overrides(), "masks=null", "background=null", "discriminator=null")
SHORT = ("--rounds", 1, "--frames", 3, "--clip-frames", 5, "--batch-size", 2)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_report_and_tables(tmp_path, capsys, monkeypatch):
    """All rows run in this process, as in test_train.py."""
    monkeypatch.setattr(animate, "in_fresh_process", lambda measure: measure())
    output = tmp_path / "animate.json"
    arguments = ("--config", "demo.yaml", *SMALL, *SHORT, "--memory-frames", 20)
    assert call(animate, *arguments, "--output", output) == 0
    report = json.loads(output.read_text())
    stages = {row["stage"]: row for row in report["stages"]}
    assert list(stages) == [
        "plain loop", "fewer products", "source once", "batches", "folded norms",
        "regrouped outputs", "channels last", "freed memory is kept",
    ]  # fmt: skip
    assert stages["plain loop"]["ratio"] == 1
    assert stages["plain loop"]["max_error"] == 0
    assert all(row["max_error"] < 1e-4 for row in stages.values())
    assert all(row["frames_per_second"] > 0 for row in report["stages"] + report["clips"])
    assert [row["clip"] for row in report["clips"]] == [
        "reading", "networks", "writing", "in turns", "overlapped",
    ]  # fmt: skip
    assert list(report["resident_mib"]) == ["2", "20"]
    printed = capsys.readouterr().out
    assert f"| {stages['channels last']['frames_per_second']:.2f}" in printed
    assert "left out: the row bf16, which is emulated on this device" in printed
    assert "after 20 frames" in printed


def test_a_checkpoint(tiny_run, tmp_path, monkeypatch):
    """A checkpoint gives the weights; the device computes bf16 fast."""
    monkeypatch.setattr(animate, "in_fresh_process", lambda measure: measure())
    monkeypatch.setattr(speed_trial, "half_precision_ratio", lambda *_: 0.5)
    arguments = ("--checkpoint", tiny_run / "checkpoints" / "best.pt", *SHORT)
    assert call(animate, *arguments, "--output", tmp_path / "animate.json") == 0
    report = json.loads((tmp_path / "animate.json").read_text())
    *_, exact, half, kept = report["stages"]
    assert [row["stage"] for row in (half, kept)] == ["bf16", "freed memory is kept"]
    assert exact["max_error"] < 1e-4
    assert half["max_error"] > 0
    assert half["psnr"] > 40


# Rows that each kind leaves out: X2Face is in full precision, and blurs and upsamples otherwise.
ROWS = [
    "plain loop", "fewer products", "source once", "batches", "folded norms", "regrouped outputs",
    "channels last", "bf16", "freed memory is kept",
]  # fmt: skip
WITHOUT = {
    "monkey_net": {"regrouped outputs"},
    "x2face": {"fewer products", "regrouped outputs", "bf16"},
    "tpsmm": set(),
}


@pytest.mark.parametrize("kind", WITHOUT)
def test_rows_of_each_kind(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.setattr(animate, "in_fresh_process", lambda measure: measure())
    monkeypatch.setattr(speed_trial, "half_precision_ratio", lambda *_: 0.5)
    small = [o for o in SMALL if not o.startswith("motion.")]
    output = tmp_path / "animate.json"
    arguments = ("--config", "demo.yaml", *small, *tiny_kind(kind), *SHORT, "--output", output)
    assert call(animate, *arguments) == 0
    stages = {row["stage"]: row for row in json.loads(output.read_text())["stages"]}
    assert list(stages) == [name for name in ROWS if name not in WITHOUT[kind]]
    exact = {name: row for name, row in stages.items() if name not in ROWS[-2:]}
    assert all(row["max_error"] < 1e-4 for row in exact.values())
    assert all(row["psnr"] is None or row["psnr"] > 40 for row in stages.values())
    printed = capsys.readouterr().out
    for name in WITHOUT[kind] - {"fewer products"}:
        assert f"left out: the row {name}, which changes nothing" in printed


@pytest.mark.parametrize("optimizations", [(), (AS_PUBLISHED,)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_loop_computes_what_the_branch_does(kind, optimizations):
    """Relative motion equals absolute motion here, since the source is the reference frame, too."""
    config = kind_config(kind, "masks=null", "background=null")
    model = Model(config).eval()
    inputs = noise_inputs(config, batch=1)
    with torch.no_grad():
        expected = model.motion(inputs).prediction
        found = plain_loop(model, inputs.source, inputs.source, optimizations)(inputs.driving)
    assert torch.allclose(found, expected, atol=1e-5)


def test_rows_by_hand():
    rows = stage_rows({"plain": 8.0, "fast": 2.0}, {"plain": (0.0, None), "fast": (0.5, 6.0)}, 4)
    assert [row["frames_per_second"] for row in rows] == [0.5, 2]
    assert [row["ratio"] for row in rows] == [1, 4]
    assert [row["psnr"] for row in rows] == [None, 6]


def test_runs_take_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = whole_clips.in_turns(runs, 2)
    assert order == ["a", "b"] * 3  # the first round warms up
    assert list(seconds) == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--output", "."), "--output .: is a folder"),
        (("--config", "vox-masks.yaml"), "motion is null; this measures the motion branch"),
        (("--checkpoint", "x.pt", "seed=1"), "seed=1: a checkpoint has its own config"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, expected):
    argv = [*arguments, "--device", "cpu"]
    assert run_entry_point(animate.main, animate.build_parser(), argv) == 2
    assert expected in error_line(capsys, "python -m benchmarks.animate")
