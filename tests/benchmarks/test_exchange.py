"""benchmarks/exchange.py: two processes, over a slowed network where the system allows one."""

import gc
import json
import subprocess
import sys

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from benchmarks import exchange
from benchmarks.training_steps import build_trainer, first_batch
from common.distributed import processes as distributed
from common.errors import UserError
from tests.helpers.factories import tiny_config
from tests.helpers.processes import finish_together, start_function
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
        exchange.ROWS, 1
    )
    if mbit:
        assert 0.07 < report["gbit_per_second"] < 0.101


def save_numbers_of_exchanges(folder):
    """For each row, how many of torch's exchanges exist while it is measured."""
    config = tiny_config("masks=null", "background=null", "discriminator=null")
    trainer = build_trainer(config, torch.device("cpu"))
    batch = first_batch(config).split(trainer.num_own_samples)[distributed.rank()]
    found = []

    def count(*_):
        found.append(sum(isinstance(each, DistributedDataParallel) for each in gc.get_objects()))
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "seconds", count)
        for row in (*exchange.ROWS, exchange.ROWS[0]):
            exchange.time_of(row, trainer, batch)
    (folder / f"{distributed.rank()}.json").write_text(json.dumps(found))


def test_no_row_has_the_exchanges_of_another(tmp_path):
    ended = finish_together(start_function(save_numbers_of_exchanges, tmp_path))
    assert [process.code for process in ended] == [0, 0], ended
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found == [[0, 0, 1, 1, 0]] * 2


def test_without_the_programs_it_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="measure the loopback interface with --mbit 0"):
        exchange.start_two(1000)
