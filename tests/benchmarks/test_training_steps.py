"""Tools of the benchmarks of training: fresh processes."""

import os
from functools import partial

import pytest
import torch

from benchmarks import training_steps
from benchmarks.training_steps import in_fresh_process
from common.errors import UserError


def test_a_process_has_its_own_memory_and_answers():
    assert in_fresh_process(os.getpid) != os.getpid()


def test_a_process_that_the_system_kills_is_one_line():
    with pytest.raises(UserError, match="most likely for its memory; make the batches smaller"):
        in_fresh_process(partial(os._exit, 1))


def test_memory_that_shrinks_by_a_few_pages_counts_as_none(monkeypatch):
    peaks = iter([5_000_000, 4_900_000, None])
    monkeypatch.setattr(training_steps, "peak_memory", lambda device: next(peaks))
    device = torch.device("cpu")
    assert training_steps.memory_above(4_000_000, device) == 1_000_000
    assert training_steps.memory_above(5_000_000, device) == 0
    assert training_steps.memory_above(5_000_000, device) is None
