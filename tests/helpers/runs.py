"""Runs entry points as a user does, in this process or in one of their own; reads run folders."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

from common.cli import run_entry_point
from tests.helpers.factories import tiny_overrides
from tests.helpers.media import write_clip, write_frame_folder, write_strip

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 120.0  # seconds to wait for a process that should do something


def call(module: ModuleType, *arguments: object) -> int:
    """Run an entry point in this process on the CPU; returns its exit code."""
    argv = [*map(str, arguments), "--device", "cpu"]
    return run_entry_point(module.main, module.build_parser(), argv)


def tiny(output_dir: Path, *overrides: str) -> list[str]:
    """Arguments of train.py for a tiny run into `output_dir`; the last override wins."""
    return ["--config", "demo.yaml", *tiny_overrides(), f"run.output_dir={output_dir}", *overrides]


class Ended(NamedTuple):
    """Exit code and output of a process that has ended."""

    code: int
    stdout: str
    stderr: str


def command(script: str, arguments: Sequence[object]) -> list[str]:
    start = [str(REPOSITORY / script)] if script.endswith(".py") else ["-m", script]
    return [sys.executable, *start, *map(str, arguments), "--device", "cpu"]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start an entry point as a process that leads a process group of its own."""
    return subprocess.Popen(
        command(script, arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> Ended:
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, stdout, stderr)


def run(script: str, *arguments: object) -> Ended:
    """Run an entry point as a process until it ends."""
    return finish(start(script, *arguments))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for `condition`; fail if the process ends before, or after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


def steps(run_dir: Path) -> list[int]:
    """Steps of the checkpoints in a run folder, in ascending order."""
    names = [path.name for path in (run_dir / "checkpoints").glob("step-*.pt")]
    return sorted(int(match[1]) for name in names if (match := re.search(r"-(\d+)\.pt", name)))


def step_file(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step-{step:08d}.pt"


def contents(path: Path) -> dict[str, Any]:
    """Read the content of a checkpoint, without running any code in it."""
    content = torch.load(path, weights_only=True)
    assert isinstance(content, dict)
    return content


def metrics(run_dir: Path, kind: str = "train") -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl of one kind, in order."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def write_clips(root: Path, num_train: int = 4) -> Path:
    """Write a data root with clips of different kinds and odd shapes; returns `root`."""
    for index in range(num_train - 2):
        write_clip(root / "train" / f"clip{index}.mp4", 6, (48 + 2 * index, 66))
    write_frame_folder(root / "train" / "folder", 5, (37, 51))
    write_clip(root / "train" / "tall.webm", 6, (66, 34))
    write_clip(root / "test" / "wide.mp4", 7, (40, 72), Fraction(30000, 1001))
    write_strip(root / "test" / "strip.png", 4, 33)
    return root


def error_line(capsys: pytest.CaptureFixture[str], script: str) -> str:
    """Check that stderr is exactly one line, of `script`, and no traceback; returns the line."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{script}: error: ")
    return lines[0]
