"""Tests of the division of cores, and of freed memory that the process keeps."""

import os
import platform
import subprocess
import sys

import pytest

from common import machine
from tests.helpers.runs import REPOSITORY

NEW_PAGES = """
import resource, torch
from common.machine import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.empty(2**24).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages()
print(new_pages())
keep_freed_memory()
for _ in range(3):  # in which the heap finds its size
    new_pages()
print(new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's")
def test_freed_memory_is_kept():
    """A block that is freed and allocated again needs no new pages."""
    done = subprocess.run(
        [sys.executable, "-c", NEW_PAGES], cwd=REPOSITORY, capture_output=True, check=True
    )
    by_default, kept = map(int, done.stdout.split())
    assert by_default > 10_000
    assert kept < 100


@pytest.mark.parametrize(
    ("cores", "num_workers", "is_cpu", "environment", "expected"),
    [
        (1, 4, True, {}, (1, 0)),
        (2, 1, True, {}, (2, 0)),  # data is read between the steps
        (4, 1, True, {}, (3, 1)),
        (16, 4, True, {}, (12, 4)),
        (16, 8, True, {}, (12, 4)),
        (2, 4, False, {}, (1, 1)),  # the step runs on the GPU
        (16, 4, False, {}, (12, 4)),
        (1, 4, False, {}, (1, 0)),
        (2, 4, True, {"OMP_NUM_THREADS": "1"}, (1, 1)),
        (2, 4, True, {"OMP_NUM_THREADS": "2"}, (2, 0)),
        (16, 4, True, {"LOCAL_WORLD_SIZE": "4"}, (3, 1)),
        (16, 4, True, {"LOCAL_WORLD_SIZE": "4", "OMP_NUM_THREADS": "1"}, (1, 3)),
        (2, 4, True, {"LOCAL_WORLD_SIZE": "4"}, (1, 0)),
    ],
)
def test_threads_and_workers_are_no_more_than_cores(
    monkeypatch, cores, num_workers, is_cpu, environment, expected
):
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine, "num_cores", lambda: cores)
    assert machine.divide_cores(num_workers, is_cpu=is_cpu) == expected


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000\n", 8), ("150000 100000\n", 2), ("50000 100000\n", 1), ("1600000 100000\n", 8),
     ("nonsense\n", 8), (None, 8)],
)  # fmt: skip
def test_cores_of_a_container(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    path = tmp_path / "cpu.max"
    if quota is not None:
        path.write_text(quota)
    monkeypatch.setattr(machine, "_CPU_QUOTA", path)
    assert machine.num_cores() == expected


def test_entry_points_let_threads_sleep_while_they_wait():
    """A policy that the environment sets is kept."""
    code = "import train, os; print(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
        environment["OMP_DISPLAY_ENV"] = "true"  # libgomp prints its settings
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected
        assert f"OMP_WAIT_POLICY = '{expected}'" in done.stderr
