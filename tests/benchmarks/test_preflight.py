"""benchmarks/preflight.py on few clips."""

import json

import pytest

from benchmarks import data, preflight
from common.cli import run_entry_point
from datasets import clips


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(clips, "MIN_FOR_INDEX", 1)
    monkeypatch.setattr(data, "SIZE", (48, 64))
    monkeypatch.setattr(preflight, "SIZE", (48, 64))
    monkeypatch.setattr(preflight, "NUM_FRAMES", 3)
    monkeypatch.setattr(preflight, "COPIES", 4)


def test_table(tmp_path, capsys):
    output = tmp_path / "preflight.json"
    argv = ["--clips", "9", "--output", str(output)]
    assert run_entry_point(preflight.main, preflight.build_parser(), argv) == 0
    report = json.loads(output.read_text())
    assert [row["check"] for row in report["checks"]] == ["first", "second", "3 clips changed"]
    assert {row["frames"] for row in report["checks"]} == {"27"}
    assert report["index_bytes"] > 9 * 64
    assert "| second" in capsys.readouterr().out


def test_too_few_clips_for_an_index(monkeypatch, capsys):
    monkeypatch.setattr(clips, "MIN_FOR_INDEX", 10)
    assert run_entry_point(preflight.main, preflight.build_parser(), ["--clips", "9"]) == 2
    assert "--clips 9: an index is made of 10 clips or more" in capsys.readouterr().err
