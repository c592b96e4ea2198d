"""Facts and settings of the machine: CPU cores, memory of CPU tensors, loopback addresses."""

import ctypes
import ipaddress
import math
import os
import platform
from pathlib import Path
from typing import Final, NamedTuple

LAST_PORT: Final = 2**16 - 1  # the highest number of a TCP port

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU, and the period
_CORES_PER_WORKER = 4  # cores for each worker where the training step runs on the CPU too

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # parameters of mallopt(3)


class Threads(NamedTuple):
    """Division of the cores between threads of the step and worker processes that read data."""

    num_threads: int
    num_workers: int


def is_loopback(host: str) -> bool:
    """Whether a server at `host` can be reached from this machine alone.

    `host` is an address or `localhost`. Any other name counts as not loopback, because on another
    machine it may stand for another address.
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def num_cores() -> int:
    """Number of cores that this process may use; a scheduler or a container may restrict them."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # there is no such file, or it says `max`: no limit
        return cores


def divide_cores(num_workers: int, *, is_cpu: bool) -> Threads:
    """Choose numbers of threads and workers that together fit this process's share of the cores.

    If there were more of them, threads would wait for each other at every operation. The processes
    that torchrun has started on this machine share its cores. If the environment sets
    OMP_NUM_THREADS, that number of threads is kept.

    Args:
        num_workers: the largest number of workers that is wanted.
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
    """Let this process reuse the memory that tensors on the CPU have freed.

    By default glibc returns large blocks to the system at once, and every operation gets them anew,
    page by page. Does nothing with another C library.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_M_TOP_PAD, 2**28)
