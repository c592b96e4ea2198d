"""Processes that end while another one is gone: the first reason is told, in one line."""

import os
import re
import signal
import time

import pytest
import torch

from common.distributed import processes as distributed
from common.distributed.rendezvous import ProcessPlace
from common.errors import UserError
from tests.helpers.processes import finish_together, start_function

# torch warns that the store of rank 0 is gone.
NOISE = re.compile(r"(\[rank\d+\]:)?\[W|frame #|Exception raised|$")


def die_after_the_other(folder):
    """Kill this process when the other one has come so far that it waits for nothing of it."""
    while not (folder / "other").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def fail_while_another_dies(folder):
    """Both find the same error, but rank 1 is killed before it has left the group."""
    distributed.largest(0)
    if distributed.rank() == 1:
        die_after_the_other(folder)
    (folder / "other").touch()
    raise distributed.common_error("the disk is full")


def die_at_the_end(folder):
    """All is done, but rank 0 is killed before it has left the group."""
    distributed.largest(0)
    if distributed.rank() == 0:
        die_after_the_other(folder)
    (folder / "other").touch()


def lines(ended):
    return [line for line in ended.stderr.splitlines() if not NOISE.match(line)]


def test_the_error_that_ends_all_is_told_by_the_last_one(tmp_path):
    first, second = finish_together(start_function(fail_while_another_dies, tmp_path))
    assert second.code == -signal.SIGKILL
    assert first.code == 2
    assert lines(first) == ["processes: error: the disk is full"]


def test_a_loss_at_the_end_is_told_by_its_rank(tmp_path):
    first, second = finish_together(start_function(die_at_the_end, tmp_path))
    assert first.code == -signal.SIGKILL
    assert second.code == 2
    (line,) = lines(second)
    assert line.startswith(
        "processes: error: rank 1: another process has ended or cannot be reached ("
    )


@pytest.mark.parametrize("second", [RuntimeError("gloo"), KeyboardInterrupt(), SystemExit(143)])
def test_no_second_error_replaces_the_first(monkeypatch, second):
    """The process then ends at once, with the code of the first."""

    def leave():
        raise second

    monkeypatch.setattr(distributed, "read_place", lambda: ProcessPlace(0, 2, "127.0.0.1", 1))
    monkeypatch.setattr(distributed, "_join", lambda *_: None)
    monkeypatch.setattr(distributed, "_leave", leave)
    monkeypatch.setattr(distributed, "_exit_code", None)
    with pytest.raises(UserError, match="the disk is full"), distributed.process_group(1):
        raise distributed.common_error("the disk is full")
    assert distributed._exit_code == 2


@pytest.mark.parametrize(("own", "told"), [(None, "rank 1 is gone"), ("no file", "no file")])
def test_a_loss_does_not_replace_the_error_of_this_process(monkeypatch, own, told):
    def lose(*_):
        raise distributed.PeerLost("rank 1 is gone")

    def find():
        with distributed.shared_errors():
            if own is not None:
                raise UserError(own)

    monkeypatch.setattr(distributed, "_is_group", lambda: True)
    monkeypatch.setattr(distributed, "largest", lose)
    with pytest.raises(UserError, match=told):
        find()


def test_an_error_of_an_earlier_group_is_forgotten(monkeypatch):
    """Its processes leave together, which those of the next group do not after an error of one."""
    left = []
    monkeypatch.setattr(distributed, "read_place", lambda: ProcessPlace(0, 2, "127.0.0.1", 1))
    monkeypatch.setattr(distributed, "_join", lambda *_: None)
    monkeypatch.setattr(distributed, "_leave", lambda: left.append(True))
    monkeypatch.setattr(distributed, "_exit_code", None)
    with pytest.raises(UserError), distributed.process_group(1):
        raise distributed.common_error("the disk is full")
    assert (left, distributed._exit_code) == ([True], None)
    with pytest.raises(UserError), distributed.process_group(1):
        raise UserError("no such file")
    assert (left, distributed._exit_code) == ([True], 2)


def test_one_process_copies_nothing():
    distributed.copy_networks_from_main([torch.nn.Linear(2, 1)])
