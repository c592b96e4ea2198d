"""Tools of the benchmarks of training: fresh processes."""

import os
from functools import partial

import pytest

from benchmarks.training_steps import in_fresh_process
from common.errors import UserError


def test_a_process_has_its_own_memory_and_answers():
    assert in_fresh_process(os.getpid) != os.getpid()


def test_a_process_that_the_system_kills_is_one_line():
    with pytest.raises(UserError, match="most likely for its memory; make the batches smaller"):
        in_fresh_process(partial(os._exit, 1))
