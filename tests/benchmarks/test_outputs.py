"""A name that no file can have is refused before anything is measured."""

from pathlib import Path

import pytest

from benchmarks import (
    adversarial,
    animate,
    data,
    exchange,
    faults,
    joints,
    preflight,
    puppets,
    train,
)
from common.cli import run_entry_point
from tests.helpers.runs import error_line, step_file

WITH_CHECKPOINT = (animate, joints, puppets)
WITH_CONFIG = (adversarial, exchange, train)


@pytest.mark.parametrize("output", [".", "/", "missing/..", "folder"])
@pytest.mark.parametrize(
    "program", [adversarial, animate, data, exchange, faults, joints, preflight, puppets, train]
)
def test_an_output_that_names_no_file(tiny_run, tmp_path, monkeypatch, capsys, program, output):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    given: tuple[object, ...] = ()
    if program in WITH_CHECKPOINT:
        given = ("--checkpoint", step_file(tiny_run, 8))
    elif program in WITH_CONFIG:
        given = ("--config", "demo.yaml")
    argv = [*map(str, given), "--output", output]
    assert run_entry_point(program.main, program.build_parser(), argv) == 2
    name = program.__name__.rpartition(".")[2]
    line = error_line(capsys, f"python -m {program.__name__}")
    assert f"--output {Path(output)}: is a folder; give a file, {Path(output, name)}.json" in line
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
