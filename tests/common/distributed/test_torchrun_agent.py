"""Processes that torchrun has started end soon after torchrun is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.runs import PATIENCE, REPOSITORY

# A program that starts a process as torchrun does, prints its id, and waits to be killed.
AGENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""
CHILD = """
import signal, time
from common.distributed import torchrun_agent
torchrun_agent._POLL, torchrun_agent._GRACE_PERIOD = 0.1, 0.5
if {is_deaf}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
with torchrun_agent.ending_with_agent():
    print("ready", flush=True)
    time.sleep(60)
"""


def is_alive(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux does")
@pytest.mark.parametrize("is_deaf", [False, True])
def test_the_agent_is_killed(is_deaf):
    """This ends even a process that ignores SIGTERM, such as one that waits for others forever."""
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, CHILD.format(is_deaf=is_deaf)],
        cwd=REPOSITORY,
        env=os.environ | {"TORCHELASTIC_RUN_ID": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(agent.stdout.readline())
    assert is_alive(child)
    agent.kill()
    agent.wait()
    deadline = time.monotonic() + PATIENCE
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_that_torchrun_did_not_start_survives_its_parent():
    """A shell, for example, may end after `nohup python train.py &`."""
    code = """
import os, time
from common.distributed import torchrun_agent
torchrun_agent._POLL = 0.05
with torchrun_agent.ending_with_agent():
    if os.fork() == 0:  # its parent ends at once
        with torchrun_agent.ending_with_agent():
            time.sleep(0.5)
            print("still there", flush=True)
"""
    environment = {n: v for n, v in os.environ.items() if n != "TORCHELASTIC_RUN_ID"}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "still there\n"


def test_a_process_whose_agent_lives_is_left_alone(monkeypatch):
    from common.distributed import torchrun_agent

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setattr(torchrun_agent, "_POLL", 0.01)
    caught = []
    before = signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    try:
        with torchrun_agent.ending_with_agent():
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == []
