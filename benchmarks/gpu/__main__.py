"""Prove and measure training and animation on a GPU, within ten minutes.

    python -m benchmarks.gpu --output DIR [--correctness [S]] [--speed [S]] [--animation [S]]
        [--science [S]]

    correctness  losses and gradients of every row against a CPU in float64; no wait for the device
                 in a step; resume; NCCL; SyncBatchNorm; lack of memory
    speed        samples/s, TFLOP/s, share of the measured peak and memory of a step, by motion
                 model, precision, layout and compilation; the loader; a profile
    animation    frames/s of the networks alone, and from file to file
    science      puppets: bf16 against float32, and what some minutes of training learn

Without any of these options all four run. S is the time limit of a part in seconds. Every result is
written as soon as it is there: a line of DIR/results.jsonl, and DIR/report.md anew. A check that
has a result is not run again, so the same command continues. If a check takes too long, or makes
the GPU unusable, it is ended and the next one runs in a fresh process.

Exit code 1: a check has failed or was not run.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.gpu.checks import (
    PARTS,
    Setup,
    add_result,
    add_shared_arguments,
    arguments_of,
    checks_of,
    done_checks,
    read_results,
)
from benchmarks.gpu.report import one_line, write_report
from common.cli import end_on_sigterm, pick_device, positive_int, run_entry_point, say
from common.files import make_folder, named_failures

_POLL = 0.1  # seconds
_STARTS = 60.0  # seconds that a process may take between two checks, and until the first
_MAX_FRUITLESS = 2  # processes in a row that end without a result


class Progress:
    """Follows the results of a part, and prints each.

    Args:
        wanted: names of the checks that should run.
    """

    def __init__(self, part: str, output: Path, wanted: list[str]) -> None:
        self.part, self.output, self.wanted = part, output, wanted
        self.started: dict[str, Any] | None = None  # the line of the check that runs
        self.num_read = len(read_results(output))

    def read(self) -> bool:
        """Print new results and write the report; returns whether there are any."""
        results = read_results(self.output)
        new, self.num_read = results[self.num_read :], len(results)
        for found in new:
            if found["status"] == "started":
                self.started = found
            else:
                self.started = None
                say(one_line(found))
        if new:
            write_report(self.output, results)
        return bool(new)

    def missing(self) -> list[str]:
        """Names of the checks that have no result."""
        done = done_checks(self.part, self.output)
        return [name for name in self.wanted if name not in done]

    def end(self, reason: str | None) -> None:
        """Write that the check that runs was ended, if there is any; without a reason it counts as
        not run.
        """
        if self.started is not None and reason is not None:
            add_result(self.output, self.part, self.started["check"], "ended", error=reason)
            self.read()


def main(arguments: argparse.Namespace) -> int:
    end_on_sigterm()
    output: Path = arguments.output
    with named_failures(output):
        make_folder(output)
    device = pick_device(arguments.device)
    asked_for = {part: getattr(arguments, part) for part in PARTS}
    limits = {part: limit for part, limit in asked_for.items() if limit is not None}
    missing: list[str] = []
    for part, limit in (limits or PARTS).items():
        setup = Setup(device, arguments.tiny, output.resolve(), limit)
        missing += run_part(part, setup, arguments.device, arguments.only)
    results = read_results(output)
    write_report(output, results, missing)
    bad = [
        found
        for found in results
        if found["part"] in (limits or PARTS) and found["status"] in ("failed", "error", "ended")
    ]
    say(f"{len(bad)} checks have failed, {len(missing)} were not run")
    say(str(output / "report.md"))
    return 1 if bad or missing else 0


def run_part(part: str, setup: Setup, device: str, only: str) -> list[str]:
    """Run a part until it is done or its time is up; returns the checks that were not run."""
    say(f"{part}: at most {setup.seconds} s")
    deadline = time.monotonic() + setup.seconds
    wanted = [check.name for check in checks_of(part, setup) if only in check.name]
    progress, fruitless = Progress(part, setup.output, wanted), 0
    while progress.missing() and time.monotonic() < deadline and fruitless < _MAX_FRUITLESS:
        before = len(progress.missing())
        process = subprocess.Popen(
            arguments_of(part, setup, device, only),
            process_group=0,
            env=os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},  # else it is not deterministic
        )
        try:
            progress.end(_follow(process, progress, deadline))
        finally:
            _end(process)
        fruitless = 0 if len(progress.missing()) < before else fruitless + 1
    return [f"{part}: {name}" for name in progress.missing()]


def _follow(process: subprocess.Popen[bytes], progress: Progress, deadline: float) -> str | None:
    """Wait until the process ends, or a time limit is over; returns why a check was ended, or None
    if the time of the part is up.
    """
    last = time.monotonic()  # when a check has begun or ended
    while process.poll() is None:
        time.sleep(_POLL)
        if progress.read():
            last = time.monotonic()
        if time.monotonic() > deadline:
            return None
        limit = _STARTS if progress.started is None else progress.started["limit"]
        if time.monotonic() - last > limit:
            return f"took longer than {limit:g} s"
    progress.read()
    return f"its process has ended with exit code {process.returncode}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, with the workers that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    for part, seconds in PARTS.items():
        parser.add_argument(
            f"--{part}",
            nargs="?",
            const=seconds,
            type=positive_int,
            metavar="SECONDS",
            help=f"run this part, for at most so many seconds ({seconds})",
        )
    add_shared_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
