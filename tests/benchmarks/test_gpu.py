"""`python -m benchmarks.gpu` on tiny networks and a CPU: its checks, its processes, its report."""

import json
import math
import sys
import time

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import checks as gpu_checks
from benchmarks.gpu import correctness, device_checks, report
from benchmarks.gpu.checks import PARTS, Check, Setup, checks_of, read_results
from benchmarks.gpu.correctness import Numbers, differences
from benchmarks.gpu.profiling import kind_of
from benchmarks.gpu.rows import row
from tests.helpers.rows import SHIPPED
from tests.helpers.runs import call, error_line

CPU = torch.device("cpu")


@pytest.fixture
def setup(tmp_path):
    return Setup(CPU, tiny=True, output=tmp_path, seconds=60)


# One of each kind; the others differ in the row alone.
CHECKS = [
    ("correctness", "no wait in a step of vox"),
    ("correctness", "resume"),
    ("correctness", "lack of memory in training"),
    ("correctness", "lack of memory in animation"),
    ("correctness", "exchange by the group"),
    ("correctness", "numbers of vox"),
    ("speed", "peak"),
    ("speed", "vox-fomm, bf16, 2 samples"),
    ("speed", "profile"),
    ("speed", "loader"),
    ("animation", "files, vox-fomm"),
    ("animation", "networks, vox-fomm, 2 frames"),
    ("science", "puppets"),
    ("science", "bf16 against float32"),
]


@pytest.mark.parametrize(("part", "name"), CHECKS)
def test_checks_hold_on_a_cpu(setup, monkeypatch, part, name):
    monkeypatch.setattr(device_checks, "in_fresh_process", lambda measure: measure())
    (check,) = [check for check in checks_of(part, setup) if check.name == name]
    found = check.run(setup)
    assert not found.get("failed")
    json.dumps(found)
    if part in ("speed", "animation") and name not in ("profile", "loader"):
        speeds = [v for key, v in found.items() if isinstance(v, float) and key != "loss"]
        assert len(speeds) > 0
        assert all(math.isfinite(speed) and speed > 0 for speed in speeds)


@pytest.mark.parametrize("part", PARTS)
def test_names_of_checks_differ(setup, part):
    for tiny in (True, False):
        names = [check.name for check in checks_of(part, setup._replace(tiny=tiny))]
        assert len(set(names)) == len(names) > 1


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("vox")])
def test_every_row_has_a_tiny_form(name):
    assert row(name, True).data.size == (64, 64)
    assert row(name, False).data.size == (256, 256)


def test_a_wrong_gradient_fails(setup, monkeypatch):
    compute = correctness.compute

    def wrong(config, *arguments):
        found = compute(config, *arguments)
        if config.train.precision == "bf16":
            found.gradients["generator"].neg_()
        return found

    monkeypatch.setattr(correctness, "compute", wrong)
    found = correctness.numbers("vox-fomm", setup)
    (line,) = found["failed"]
    assert line == f"gradients in bf16 differ by {found['gradient, bf16']:.2g}"
    assert found["gradient, bf16"] == pytest.approx(2, abs=0.5)


def test_differences_by_hand():
    exact = Numbers({"loss/a": 2.0, "loss/b": -4.0}, {"n": torch.tensor([3.0, 4.0])})
    near = Numbers({"loss/a": 2.2, "loss/b": -4.0}, {"n": torch.tensor([3.0, 3.0])})
    assert differences(near, exact) == pytest.approx((0.1, 0.2))
    broken = Numbers({"loss/a": 2.0, "loss/b": float("nan")}, {"n": torch.tensor([3.0, 4.0])})
    assert differences(broken, exact) == (float("inf"), 0.0)
    assert differences(Numbers({}, {}), exact) == (float("inf"), float("inf"))


def test_kinds_of_kernels():
    for kernel, kind in {
        "sm90_xmma_fprop_implicit_gemm_bf16bf16": "convolutions",
        "void at::native::batch_norm_collect_statistics_channels_last_kernel": "normalization",
        "Memcpy DtoH": "copies",
        "void at::native::vectorized_elementwise_kernel": "pointwise and sums",
        "void at::native::grid_sampler_2d_backward_kernel": "warps and resizing",
        "something": "others",
    }.items():
        assert kind_of(kernel) == kind


# Processes: each stand-in writes results as a part does, but without torch.

STAND_IN = """
import json, sys, time
def add(check, status, **found):
    with open({results!r}, "a") as file:
        file.write(json.dumps(dict(part="speed", check=check, status=status, **found)) + "\\n")
lines = [json.loads(line) for line in open({results!r})] if {exists} else []
done = [line["check"] for line in lines if line["status"] != "started"]
for name in ("good", "slow", "deadly", "last"):
    if name in done:
        continue
    add(name, "started", limit=0.5)
    if name == "slow":
        time.sleep(60)
    if name == "deadly":
        sys.exit(7)
    add(name, "ok", seconds=0.1, speed=2.0)
"""


def test_a_check_that_hangs_or_dies_does_not_stop_the_others(setup, monkeypatch, capsys):
    names = ("good", "slow", "deadly", "last")
    monkeypatch.setattr(command, "checks_of", lambda *_: [Check(n, None, 1) for n in names])

    def stand_in(*_):
        results = setup.output / gpu_checks.RESULTS
        script = STAND_IN.format(results=str(results), exists=results.exists())
        return [sys.executable, "-c", script]

    monkeypatch.setattr(command, "arguments_of", stand_in)
    begun = time.monotonic()
    assert command.run_part("speed", setup, "cpu", "") == []
    assert time.monotonic() - begun < 30
    found = {f["check"]: f for f in read_results(setup.output) if f["status"] != "started"}
    assert [found[name]["status"] for name in names] == ["ok", "ended", "ended", "ok"]
    assert found["slow"]["error"] == "took longer than 0.5 s"
    assert found["deadly"]["error"] == "its process has ended with exit code 7"
    text = (setup.output / "report.md").read_text()
    assert "| good  | ok     | 2" in text
    assert "its process has ended with exit code 7" in text
    assert "speed: good: ok" in capsys.readouterr().out


def test_the_time_of_a_part_ends_it(setup, monkeypatch):
    monkeypatch.setattr(command, "checks_of", lambda *_: [Check("a", None, 1), Check("b", None, 1)])
    monkeypatch.setattr(command, "arguments_of", lambda *_: ["sleep", "60"])
    begun = time.monotonic()
    missing = command.run_part("speed", setup._replace(seconds=1), "cpu", "")
    assert missing == ["speed: a", "speed: b"]
    assert time.monotonic() - begun < 10


def test_an_error_is_a_result_and_a_torn_line_is_none(setup, monkeypatch):
    def fail(_setup):
        raise ValueError("odd\nnumber")

    checks = [Check("bad", fail, 9), Check("good", lambda _: {"x": float("nan")}, 9)]
    monkeypatch.setattr(gpu_checks, "checks_of", lambda *_: checks)
    gpu_checks.run_part("speed", setup, "")
    with (setup.output / gpu_checks.RESULTS).open("a") as file:
        file.write('[1]\n{"part": "speed"}\n{"part": "sp')
    bad, good = [found for found in read_results(setup.output) if found["status"] != "started"]
    assert (bad["status"], bad["error"]) == ("error", "ValueError: odd\nnumber")
    assert "in fail" in bad["traceback"]
    assert (good["status"], good["x"]) == ("ok", "nan")
    report.write_report(setup.output, read_results(setup.output), ["speed: other"])
    text = (setup.output / "report.md").read_text()
    assert "ValueError: odd" in text
    assert "Not run: speed: other" in text
    gpu_checks.run_part("speed", setup, "")  # both have a result
    assert len([f for f in read_results(setup.output) if f["status"] == "started"]) == 2
    gpu_checks.add_result(setup.output, "speed", "next", "ok")  # after the torn line
    assert read_results(setup.output)[-1]["check"] == "next"


def test_a_check_without_a_result_is_run_again(setup, monkeypatch):
    checks = [Check("cut short", lambda _: {"x": 1.0}, 9)]
    monkeypatch.setattr(gpu_checks, "checks_of", lambda *_: checks)
    gpu_checks.add_result(setup.output, "speed", "cut short", "started", limit=9)
    gpu_checks.run_part("speed", setup, "")
    assert [found["status"] for found in read_results(setup.output)] == ["started", "started", "ok"]


def test_the_command(tmp_path, capsys):
    """As on a GPU, in processes; a second call finds the result."""
    output = tmp_path / "results"
    options = ("--output", output, "--tiny", "--speed", "--only", "peak")
    for _ in range(2):
        assert call(command, *options) == 0
        (found,) = [f for f in read_results(output) if f["status"] != "started"]
        assert (found["check"], found["status"]) == ("peak", "ok")
        assert found["bf16, TFLOP/s"] > 0
        assert "| peak  | ok " in (output / "report.md").read_text()
        assert "0 checks have failed, 0 were not run" in capsys.readouterr().out


def test_bad_output_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert call(command, "--output", tmp_path / "file" / "results") == 2
    assert "cannot be written" in error_line(capsys, "python -m benchmarks.gpu")
