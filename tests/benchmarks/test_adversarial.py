"""benchmarks/adversarial.py on tiny networks: parameters, times, memory, and the table."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import adversarial
from benchmarks.ablation_rows import ROWS
from benchmarks.adversarial import build_variant, cost_rows, fresh_peak_memory
from benchmarks.training_steps import first_batch, take_step
from common.cli import run_entry_point
from tests.helpers.factories import tiny_config, tiny_overrides
from tests.helpers.runs import call, error_line
from training.adversary import build_adversary

SMALL = (*tiny_overrides(), "masks=null", "background=null", "discriminator.cut.probability=0.25")
CPU = torch.device("cpu")


def num_parameters(config):
    return sum(parameter.numel() for parameter in build_adversary(config).parameters())


def test_report_and_table(tmp_path, capsys):
    output = tmp_path / "cost.json"
    arguments = ("--config", "demo.yaml", *SMALL, "--rounds", 1, "--no-memory", "--output", output)
    assert call(adversarial, *arguments) == 0
    report = json.loads(output.read_text())
    rows = {row["row"]: row for row in report["rows"]}
    assert list(rows) == [*adversarial.MEASURED, "prioritycut every step"]
    assert report["batch_size"] == 4
    patch = tiny_config(*ROWS["fomm-adv"])
    expected = {"fomm-adv": num_parameters(patch), "unet": num_parameters(tiny_config())}
    assert rows["fomm"]["parameters"] == 0
    for row, number in expected.items():
        assert rows[row]["parameters"] == number
    assert [name for name, row in rows.items() if row["mixing_ms"]] == [
        "cutmix", "prioritycut", "prioritycut every step",
    ]  # fmt: skip
    assert rows["fomm"]["ratio"] == 1
    assert rows["cutmix"]["probability"] == 0.25
    assert all(row["plain_ms"] > 0 for row in rows.values())
    assert all(row["memory_mib"] is None for row in rows.values())
    assert set(report["cut_mask_ms"]) == {"priority_cut", "rectangle_cut"}
    printed = capsys.readouterr().out
    assert f"| {rows['unet']['parameters']:,} " in printed
    assert f"cut mask of a batch: priority_cut {report['cut_mask_ms']['priority_cut']:.3f} ms" in (
        printed
    )


def test_expected_step_by_hand():
    """A quarter of the steps mixes: 3/4 * 4 s + 1/4 * 8 s. If every step mixes, it is 8 s."""
    configs = {
        "fomm": tiny_config("discriminator=null", "masks=null", "background=null"),
        "prioritycut": tiny_config("discriminator.cut.probability=0.25"),
    }
    variants = {row: build_variant(config, CPU) for row, config in configs.items()}
    seconds = {
        ("fomm", "plain"): 2.0,
        ("prioritycut", "plain"): 4.0,
        ("prioritycut", "mixing"): 8.0,
    }
    memory = {"fomm": 2**20, "prioritycut": None}
    rows = cost_rows(configs, variants, seconds, memory)
    assert [row["row"] for row in rows] == ["fomm", "prioritycut", "prioritycut every step"]
    assert [row["step_ms"] for row in rows] == [2000, 5000, 8000]
    assert [row["ratio"] for row in rows] == [1, 2.5, 4]
    assert [row["memory_mib"] for row in rows] == [1, None, None]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_of_a_fresh_process():
    """It does not count what this process holds, and is at least that of weights, gradients and
    Adam's two moments.
    """
    config = tiny_config("masks=null", "background=null", "discriminator.channels=[4, 512]")
    ballast = torch.ones(2**27)  # 512 MiB in this process, which must not count
    needed = 4 * 4 * num_parameters(config)
    assert needed > 2**25
    assert needed < fresh_peak_memory(config, "cpu") < 10 * needed
    assert len(ballast)


@pytest.mark.parametrize("warm_up", [0.0, 5.0])
def test_kinds_of_steps(warm_up):
    """A mixing step has the consistency term, even during the warm-up; a plain step has not."""
    config = tiny_config(f"discriminator.cut.warm_up_epochs={warm_up}")
    variant = build_variant(config, CPU)
    assert list(variant.kinds) == ["plain", "mixing"]
    batch = first_batch(config)
    found = {
        kind: take_step(variant.trainer, batch, host_random)
        for kind, host_random in variant.kinds.items()
    }
    name = "discriminator_loss/consistency"
    assert [name in result.scalars for result in found.values()] == [False, True]
    assert all(torch.isfinite(result.scalars["loss/total"]) for result in found.values())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--config is missing"),
        (("--config", "demo.yaml", "--output", "."), "--output .: is a folder"),
        (("--config", "demo.yaml", "motion=null"), "motion is null"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, expected):
    argv = [*arguments, "--device", "cpu"]
    assert run_entry_point(adversarial.main, adversarial.build_parser(), argv) == 2
    assert expected in error_line(capsys, "python -m benchmarks.adversarial")
