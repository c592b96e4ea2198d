"""benchmarks/exchange.py: two processes, over a slowed network where the system allows one."""

import json
import subprocess
import sys

import pytest

from benchmarks import exchange
from common.errors import UserError
from tests.helpers.runs import REPOSITORY, environment


def can_make_namespaces():
    try:
        with exchange.two_namespaces(100):
            return True
    except UserError:
        return False


def test_a_row_for_each_way_to_exchange(tmp_path):
    """A slowed network is as slow as asked, and the processes know each other's address."""
    mbit = 100 if can_make_namespaces() else 0
    output = tmp_path / "exchange.json"
    overrides = ("train.batch_size=2", "perceptual.weights=random", "data.num_workers=0")
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.exchange", "--config", "demo.yaml", *overrides),
            *("masks=null", "background=null", "--rounds", "1", "--device", "cpu"),
            *("--mbit", str(mbit), "--output", str(output)),
        ],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    table = [line for line in ended.stdout.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in table[2:]] == list(exchange.ROWS)
    report = json.loads(output.read_text())
    assert {row: len(times) for row, times in report["seconds"].items()} == dict.fromkeys(
        exchange.ROWS, 2
    )
    if mbit:
        assert 0.07 < report["gbit_per_second"] < 0.101


def test_without_the_programs_it_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="measure the loopback interface with --mbit 0"):
        exchange.start_two(1000)
