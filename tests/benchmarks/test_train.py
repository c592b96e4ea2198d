"""benchmarks/train.py on tiny networks: its rows, what a plain step computes, the table."""

import json
import re

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import train
from benchmarks.animation_models import spread_keypoints
from benchmarks.plain_step import OPTIMIZATIONS
from benchmarks.train import build_variant, undone_by_row
from benchmarks.training_steps import first_batch, without_auto
from common import speed_trial
from common.cli import run_entry_point
from tests.helpers.factories import tiny_config, tiny_overrides
from tests.helpers.runs import call, error_line
from tests.helpers.tiny_kinds import tiny_kind

CPU = torch.device("cpu")
ALL = ("train.precision=bf16", "discriminator.spectral_norm=false")


def test_rows_begin_plain_and_end_with_the_config():
    rows = undone_by_row(tiny_config(*ALL))
    assert next(iter(rows)) == "plain"
    assert [len(missing) for missing in rows.values()] == list(range(len(rows) - 1, -1, -1))
    names = [optimization.name for optimization in OPTIMIZATIONS]
    undone = [optimization.name for optimization in rows["plain"]]
    assert undone == [name for name in names if name != "compile"]


def test_optimizations_that_a_config_lacks_have_no_row():
    rows = undone_by_row(tiny_config("masks=null", "background=null", "discriminator=null"))
    missing = {optimization.name for optimization in rows["plain"]}
    assert not missing & {
        "one discriminator pass for both players",
        "target features once",
        "half precision",
        "VGG stored in half precision",
    }
    assert {"fused optimizer", "channels_last", "upsampling in the convolution"} <= missing


def steps_of_rows(config, rounding=1e-4):
    """Scalars of the first and the second step of every row, and the operations of the first.

    The losses are those of the plain step, with as many operations or fewer in each further row.

    Args:
        rounding: largest difference of gradient norms, relative to that of the plain step; that of
            the losses after the update is ten times as large.
    """
    batch, found = first_batch(config), {}
    for name, missing in undone_by_row(config).items():
        variant = build_variant(config, missing, CPU)
        if config.motion.kind == "tpsmm":
            spread_keypoints(variant.trainer.model.motion.keypoint_detector)
        with FlopCounterMode(display=False) as counter:
            scalars = variant.step(batch)
        found[name] = (scalars, variant.step(batch), counter.get_total_flops())
    plain, again, most = found["plain"]
    for name, (scalars, second, flops) in found.items():
        for key in {"loss/total", "discriminator_loss/total"} & plain.keys():
            assert_close(scalars[key], plain[key], rtol=1e-4, atol=0, msg=f"{name} {key}")
        assert_close(scalars["gradient_norm"], plain["gradient_norm"], rtol=rounding, atol=0)
        assert_close(second["loss/total"], again["loss/total"], rtol=10 * rounding, atol=0)
        assert flops <= most
        most = flops
    return found


MONKEY_NETS_OWN = (
    "discriminator.kind=monkey_net",
    "discriminator.spectral_norm=false",
    "discriminator.cut.kind=none",
    "discriminator.keypoints=true",
    "discriminator.detach=false",
    "discriminator.generator_losses.encoder_features=[10, 1]",
)
KIND_ROWS = {
    "monkey_net": 7,  # without a perceptual loss
    "x2face": 5,  # and without a discriminator
    "tpsmm": 7,
    "tpsmm avd": 5,  # without predictions
}


@pytest.mark.parametrize("kind", KIND_ROWS)
def test_every_optimization_keeps_the_losses_of_each_kind(kind):
    name, _, second_stage = kind.partition(" ")
    own = MONKEY_NETS_OWN if kind == "monkey_net" else ("discriminator=null",)
    if second_stage:
        own += ("motion.avd.code=8",)
    config = tiny_config(*tiny_kind(name), "masks=null", "background=null", *own)
    # Of 32 x 32 pixels a ResNet-18 leaves one, where BatchNorm sees 4 numbers.
    rounding = 1e-2 if name == "tpsmm" else 1e-4
    assert len(steps_of_rows(config, rounding)) == KIND_ROWS[kind]


def test_every_optimization_keeps_the_losses_and_none_adds_arithmetic():
    found = steps_of_rows(tiny_config("discriminator.spectral_norm=false"))
    counts = [flops for _, _, flops in found.values()]
    saving = {
        name: before - after
        for name, before, after in zip(list(found)[1:], counts, counts[1:], strict=False)
    }
    for name in (
        "+ VGG no deeper than needed",
        "+ target features once",
        "+ one discriminator pass for both players",
    ):
        assert saving[name] > 0, name


def test_report_and_table(tmp_path, capsys, monkeypatch):
    """All rows run in this process, since a new one takes seconds to start; test_training_steps.py
    tests that.
    """
    monkeypatch.setattr(train, "in_fresh_process", lambda measure: measure())
    output = tmp_path / "train.json"
    overrides = (*tiny_overrides(), "masks=null", "background=null")
    arguments = ("--config", "demo.yaml", *overrides, "--rounds", 1, "--steps", 2)
    assert call(train, *arguments, "--loaded-steps", 1, "--output", output) == 0
    report = json.loads(output.read_text())
    rows = report["rows"]
    assert rows[0]["row"] == "plain"
    assert rows[0]["ratio"] == 1
    assert set(report["peak_tflops"]) == {"float32"}
    for row in rows:
        assert row["samples/s"] == pytest.approx(4000 / row["ms"])
        assert row["ratio"] == pytest.approx(rows[0]["ms"] / row["ms"])
        assert row["TFLOP/s"] == pytest.approx(row["GFLOP"] * row["samples/s"] / 1000)
        assert row["memory_gib"] is None or row["memory_gib"] >= 0
    assert 0 < report["waiting_for_data"] < 1
    printed = capsys.readouterr().out
    assert f"| {rows[-1]['row']} " in printed
    assert re.search(r"waiting for data: .*% of 1 steps", printed)


def test_slow_steps_with_the_loader_end_by_time(monkeypatch):
    """Of large models a hundred steps take half an hour."""
    monkeypatch.setattr(train, "_MAX_LOADED", 1e-9)
    config = tiny_config(
        "train.precision=float32", "train.channels_last=false", "masks=null", "background=null"
    )
    assert train.time_waiting(config, "cpu", 100)[1] == 1


def test_an_emulated_precision_is_left_out(monkeypatch, capsys):
    """A precision that the device emulates is replaced by float32, and a line says so."""
    for ratio, expected in ((20.0, "float32"), (0.5, "bf16")):
        monkeypatch.setattr(speed_trial, "half_precision_ratio", lambda *_, found=ratio: found)
        config = without_auto(tiny_config("train.precision=bf16"), CPU)
        assert config.train.precision == expected
        printed = capsys.readouterr().out
        assert ("left out: train.precision bf16, which is emulated" in printed) == (ratio > 1)
        assert ("+ half precision" in undone_by_row(config)) == (ratio < 1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--config is missing"),
        (("--config", "demo.yaml", "--output", "."), "--output .: is a folder"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, expected):
    argv = [*arguments, "--device", "cpu"]
    assert run_entry_point(train.main, train.build_parser(), argv) == 2
    assert expected in error_line(capsys, "python -m benchmarks.train")
