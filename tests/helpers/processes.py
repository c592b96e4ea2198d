"""Starts several processes on this machine that form a group, as torchrun would."""

import argparse
import importlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from common.cli import run_entry_point
from common.distributed import processes as distributed
from tests.helpers.runs import PATIENCE, REPOSITORY, Ended, environment, finish


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def place(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment variables that give process `rank` of `size` its place."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def start_together(command: Sequence[str], size: int = 2) -> list[subprocess.Popen[str]]:
    """Start `size` processes of `command`; returns them by rank."""
    port = free_port()
    return [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment() | place(rank, size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for rank in range(size)
    ]


def signal_together(processes: Sequence[subprocess.Popen[str]], number: int) -> None:
    """Send a signal to all processes at once, as Ctrl-C does: it waits until all have got it."""
    for each in (signal.SIGSTOP, number, signal.SIGCONT):
        for process in processes:
            process.send_signal(each)


def finish_together(processes: Sequence[subprocess.Popen[str]]) -> list[Ended]:
    return [finish(process) for process in processes]


def start_function(function: Callable[[Path], None], folder: Path) -> list[subprocess.Popen[str]]:
    """Start two processes that form a group; each calls `function(folder)`, of a test file."""
    names = (function.__module__, function.__name__, str(folder))
    return start_together([sys.executable, "-m", "tests.helpers.processes", *names])


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    with distributed.process_group(timeout=PATIENCE):
        getattr(importlib.import_module(arguments.module), arguments.function)(arguments.folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="processes")
    for name, kind in (("module", str), ("function", str), ("folder", Path)):
        parser.add_argument(name, type=kind)
    sys.exit(run_entry_point(main, parser))
