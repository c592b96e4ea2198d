"""Checks of a part of `python -m benchmarks.gpu`: each runs by itself, and its result is written as
soon as it is there.

A part runs in a process of its own (`python -m benchmarks.gpu.checks`), which the command ends and
starts anew after a check that takes too long, or after an error that leaves the GPU unusable.
"""

import argparse
import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from common.cli import pick_device
from common.files import add_line
from common.json_files import parse_json
from common.safe_paths import read_plain_file

# By part: the seconds it gets by default. All together leave a minute of ten for the rest.
PARTS: Final = {"correctness": 150, "speed": 230, "animation": 60, "science": 100}
RESULTS: Final = "results.jsonl"
_MAX_RESULTS = 2**26  # bytes


class Setup(NamedTuple):
    """What every check gets.

    tiny: small networks and pictures, to try the command itself, on a CPU too.
    output: the folder of the results, for further files.
    seconds: time limit of the part.
    """

    device: torch.device
    tiny: bool
    output: Path
    seconds: int


class Check(NamedTuple):
    """One check of a part.

    run: returns what was found, by name, such that JSON can hold it. `failed` holds a line for each
        criterion that was not met.
    limit: seconds after which it is ended.
    """

    name: str
    run: Callable[[Setup], dict[str, Any]]
    limit: float


def checks_of(part: str, setup: Setup) -> list[Check]:
    """The checks of a part, the most important ones first."""
    found: list[Check] = import_module(f"benchmarks.gpu.{part}").checks(setup)
    return found


def read_results(output: Path) -> list[dict[str, Any]]:
    """The lines of the results, in order; those that a killed process has torn are left out.

    Each has part, check, status and found. status is `started`, `ok`, `failed`, `error` or `ended`.
    """
    path = output / RESULTS
    if not path.exists():
        return []
    results = []
    for line in read_plain_file(path, _MAX_RESULTS).splitlines():
        with suppress(ValueError):
            found = parse_json(line)
            if isinstance(found, dict) and found.keys() >= {"part", "check", "status"}:
                results.append(found)
    return results


def done_checks(part: str, output: Path) -> set[str]:
    """Names of the checks of a part that have a result."""
    results = read_results(output)
    return {f["check"] for f in results if f["part"] == part and f["status"] != "started"}


def add_result(output: Path, part: str, check: str, status: str, **found: Any) -> None:
    """Append a line to the results."""
    line = {"part": part, "check": check, "status": status, "at": time.time(), **found}
    add_line(output / RESULTS, json.dumps(_for_json(line), allow_nan=False))


def _for_json(value: Any) -> Any:
    """The same value, with text in the place of numbers that are not finite."""
    if isinstance(value, dict):
        return {name: _for_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def run_part(part: str, setup: Setup, only: str) -> None:
    """Run the checks of a part that have no result yet, and whose names contain `only`."""
    done = done_checks(part, setup.output)
    for check in checks_of(part, setup):
        if check.name not in done and only in check.name:
            _run(part, check, setup)


def _run(part: str, check: Check, setup: Setup) -> None:
    add_result(setup.output, part, check.name, "started", limit=check.limit)
    begun = time.perf_counter()
    try:
        found = check.run(setup)
        status = "failed" if found.get("failed") else "ok"
    except Exception as error:
        place = "".join(traceback.format_exception(error)[-4:])
        status, found = "error", {"error": f"{type(error).__name__}: {error}", "traceback": place}
    found["seconds"] = time.perf_counter() - begun
    add_result(setup.output, part, check.name, status, **found)
    if setup.device.type == "cuda":
        torch.cuda.synchronize()  # ends this process if an error has left the GPU unusable
        torch.cuda.empty_cache()


def arguments_of(part: str, setup: Setup, device: str, only: str) -> list[str]:
    """The command that runs a part in a process of its own."""
    options = ["--output", str(setup.output), "--device", device, "--only", only]
    options += ["--seconds", str(setup.seconds)]
    return [sys.executable, "-m", __name__, part, *options, *(["--tiny"] if setup.tiny else [])]


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda")
    parser.add_argument("--only", default="", metavar="TEXT", help="checks with TEXT in their name")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try this command")


if __name__ == "__main__":
    _parser = argparse.ArgumentParser()
    _parser.add_argument("part", choices=tuple(PARTS))
    _parser.add_argument("--output", type=Path, required=True)
    _parser.add_argument("--seconds", type=int, required=True)
    add_shared_arguments(_parser)
    _given = _parser.parse_args()
    _device = pick_device(_given.device)
    _setup = Setup(_device, _given.tiny, _given.output, _given.seconds)
    run_part(_given.part, _setup, _given.only)
