"""The machine that this process runs on: its cores, the memory of tensors on the CPU, and which
addresses are its own alone.
"""

import ctypes
import ipaddress
import math
import os
import platform
from pathlib import Path
from typing import NamedTuple

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container; microseconds in a period
_CORES_PER_WORKER = 4  # where the step itself runs on the CPU and wants them all

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of mallopt(3)


class Threads(NamedTuple):
    """How the cores are divided: threads of the step, and workers that read data beside it."""

    num_threads: int
    num_workers: int


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`, an address or `localhost`; other
    names may mean another address on another machine.
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def num_cores() -> int:
    """Cores that this process may use: a scheduler or a container may leave it few."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file; `max`, which is no limit
        return cores


def divide_cores(num_workers: int, *, is_cpu: bool) -> Threads:
    """Threads and workers that together are no more than this process's share of the cores. With
    more of them, threads would wait for each other at every operation.

    The environment's OMP_NUM_THREADS stays as it is. Processes that torchrun has started on this
    machine share the cores.

    Args:
        num_workers: that are wanted, at the most.
        is_cpu: whether the step runs on the CPU.
    """
    cores = max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) > 0:
        threads = int(given)
        return Threads(threads, min(num_workers, max(0, cores - threads)))
    workers = min(num_workers, cores // _CORES_PER_WORKER if is_cpu else cores - 1)
    return Threads(cores - workers, workers)


def keep_freed_memory() -> None:
    """Let this process keep what tensors on the CPU have freed: glibc would give large blocks back
    to the system at once, and get them anew, page by page, in every operation.

    Does nothing with another C library.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_M_TOP_PAD, 2**28)
