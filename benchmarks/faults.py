"""Fault injection: kill training at random moments, fill its disk, and check that nothing is lost.

    python -m benchmarks.faults [--kills 50] [--disks 20] [--no-files]

The runs are tiny, of 12 steps. Each state of the branches is tried:

    motion      the motion branch alone
    masks       motion and mask branch; the refinement starts after two thirds of the steps
    refinement  motion and mask branch, with refinement from the first step on
    background  all branches: refinement from the fifth, background from the ninth step on; with a
                discriminator and a moving average

Every run must end like one that nothing disturbs: the last checkpoint and best.pt are the same to
the last bit, the log has each line once and with the same numbers (except speeds), TensorBoard has
the same points, and there is no half-written file.

    kills       SIGKILL after a random part of the time that the run takes, as often as --kills
                says; each time the run continues with --resume
    full disks  a disk that is too small by a random amount. The run must fail with one line, exit
                code 2 and no traceback; then it continues with enough space. The disk is a tmpfs if
                one can be mounted, which needs root; otherwise the size of each file is limited
    files       files with bad intentions (benchmarks/hostile_files.py), given to the programs

Prints what was tried and what was lost; the exit code is 1 if anything was lost.
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from benchmarks.hostile_files import FILES, open_all
from benchmarks.tables import markdown_table
from checkpoints.folder import best_path, step_path
from common.cli import run_entry_point
from common.errors import UserError
from common.files import check_output_file, replacing
from common.tensor_files import read_tensors
from tests.helpers.factories import tiny_overrides

STATES: Final[dict[str, tuple[str, ...]]] = {
    "motion": ("masks=null", "background=null", "discriminator=null"),
    "masks": ("background=null", "discriminator=null", "masks.refinement.start_epoch=2"),
    "refinement": ("background=null", "discriminator=null"),
    "background": (
        *("masks.refinement.start_epoch=1", "background.start_epoch=2", "train.ema_decay=0.9"),
        "train.checkpoint_every=3",
    ),
}
NUM_STEPS: Final = 12  # 3 epochs
COMMON: Final = (
    *("train.epochs=3", "train.checkpoint_every=2", "train.keep_checkpoints=2"),
    *("log.scalars_every=5", "log.validate_every=4", "log.images_every=6", "log.num_images=1"),
)
SMALLEST: Final = 2**16  # bytes of the smallest disk, or file: the printed text needs some space
TIMEOUT: Final = 600.0  # seconds to wait for a process that should end


class Trial(NamedTuple):
    """Result of one kind of fault in one state of the branches.

    num_tried: number of kills, disks or files.
    num_runs: number of runs that were finished and compared.
    lost: a description of everything that was lost or is not as it should be.
    """

    kind: str
    state: str
    num_tried: int
    num_runs: int
    lost: list[str]


class Reference(NamedTuple):
    """A run that nothing disturbed, with the time and the disk space that it took."""

    state: str
    folder: Path
    seconds: float
    num_bytes: int


class ProcessEnd(NamedTuple):
    """Exit code and output of a process that has ended."""

    code: int
    output: str


def main(arguments: argparse.Namespace) -> int:
    if arguments.output is not None:
        check_output_file(Path(arguments.output), "faults.json")
    rng = random.Random(arguments.seed)
    # Killed processes leave semaphores, of which Python warns when it removes them.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of points cut by a restart
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        references = [run_undisturbed(state, Path(folder)) for state in arguments.states]
        trials = [
            *in_all_states(kill_and_resume, arguments.kills, references, rng),
            *in_all_states(fill_the_disk, arguments.disks, references, rng),
        ]
        if arguments.files:
            checkpoint = step_path(references[0].folder, NUM_STEPS)
            trials.append(open_hostile_files(Path(folder) / "hostile", checkpoint))
    if trials:
        print(f"\n{markdown_table([_row(trial) for trial in trials])}")
    if arguments.output is not None:
        with replacing(Path(arguments.output)) as temporary:
            found = [trial._asdict() for trial in trials]
            temporary.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if any(trial.lost for trial in trials) else 0


def in_all_states(
    attempt: Callable[[Reference, int, random.Random], Trial],
    num_tries: int,
    references: Sequence[Reference],
    rng: random.Random,
) -> Iterator[Trial]:
    """Divide `num_tries` equally between the states, and print what each trial has found."""
    for i, reference in enumerate(references):
        share = len(range(i, num_tries, len(references)))
        if share > 0:
            trial = attempt(reference, share, rng)
            print(f"{trial.kind}, {trial.state}: {share} tried, lost: {trial.lost or 'nothing'}")
            yield trial


def open_hostile_files(folder: Path, checkpoint: Path) -> Trial:
    """Open all of `hostile_files.FILES`; every problem with one counts as lost."""
    lost = []
    for outcome in open_all(folder, checkpoint):
        found = ", ".join(outcome.problems) or outcome.last_line
        print(f"{outcome.name}, {outcome.seconds:.1f} s: {found}")
        lost += [f"{outcome.name}: {problem}" for problem in outcome.problems]
    return Trial("files", "untrusted", len(FILES), 0, lost)


def _row(trial: Trial) -> dict[str, str]:
    """The row of a trial in the printed table."""
    return {
        "": trial.kind,
        "state": trial.state,
        "tried": str(trial.num_tried),
        "runs compared": str(trial.num_runs),
        "lost": "; ".join(trial.lost) or "nothing",
    }


# Runs


def run_undisturbed(state: str, folder: Path) -> Reference:
    """Train a run without any fault; raises UserError if it fails."""
    run_folder = folder / f"{state}-undisturbed"
    warm_up = _context().Process(target=time.sleep, args=(0,))
    warm_up.start()  # starts the server process, which does all imports once
    warm_up.join()
    started = time.perf_counter()
    ended = train_once(state, run_folder)
    if ended.code != 0:
        raise UserError(f"the run that nothing disturbs fails: {_last_line(ended)}")
    num_bytes = sum(p.stat().st_size for p in run_folder.rglob("*") if p.is_file())
    return Reference(state, run_folder, time.perf_counter() - started, num_bytes)


def train_once(
    state: str, folder: Path, *, killed_after: float | None = None, largest_file: int | None = None
) -> ProcessEnd:
    """Run train.py with --resume in a process of its own, forked from one that has all imports.

    Args:
        killed_after: seconds until the process is killed.
        largest_file: limit for the size of each file that it writes, in bytes.
    """
    overrides = (*tiny_overrides(), *COMMON, *STATES[state], f"run.output_dir={folder}")
    command = ["--config", "demo.yaml", *overrides, "--resume", "--device", "cpu"]
    output = folder.with_name(f"{folder.name}.txt")
    output.touch()
    process = _context().Process(target=_train, args=(command, output, largest_file))
    process.start()
    process.join(TIMEOUT if killed_after is None else killed_after)
    if process.exitcode is None:
        process.kill()
        process.join()
        if killed_after is None:
            return ProcessEnd(-1, f"did not end within {TIMEOUT:g} s")
    assert process.exitcode is not None
    return ProcessEnd(process.exitcode, output.read_text())


def _context() -> ForkServerContext:
    """Starts processes as forks of a server process that has imported train.py."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train"])
    return context


def _train(command: Sequence[str], output: Path, largest_file: int | None) -> None:
    """Run train.py in this process, with its output in the file `output`."""
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if largest_file is not None:
        import resource  # Windows has none

        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    sys.exit(run_entry_point(train.main, train.build_parser(), command))


# Faults


def kill_and_resume(reference: Reference, num_kills: int, rng: random.Random) -> Trial:
    """Kill runs `num_kills` times in all; resume each, let it finish, and compare it."""
    lost: list[str] = []
    num_killed = num_runs = 0
    while num_killed < num_kills:
        folder = reference.folder.with_name(f"{reference.state}-killed-{num_runs}")
        while True:
            delay = rng.uniform(0, reference.seconds) if num_killed < num_kills else None
            ended = train_once(reference.state, folder, killed_after=delay)
            if ended.code == 0:
                break
            if ended.code != -9:
                lost.append(f"exit code {ended.code}: {_last_line(ended)}")
                break
            num_killed += 1
        num_runs += 1
        lost += compare(folder, reference.folder)
    return Trial("kills", reference.state, num_killed, num_runs, lost)


def fill_the_disk(reference: Reference, num_disks: int, rng: random.Random) -> Trial:
    """Train on `num_disks` disks of random sizes, from nearly nothing to nearly enough. Each run
    that fails continues with enough space; then all are compared.
    """
    lost: list[str] = []
    largest = max(p.stat().st_size for p in reference.folder.rglob("*.pt"))
    num_failed = 0
    for number in range(num_disks):
        folder = reference.folder.with_name(f"{reference.state}-disk-{number}") / "run"
        folder.parent.mkdir()
        with _small_disk(folder.parent, rng.randrange(SMALLEST, reference.num_bytes)) as enlarge:
            limit = rng.randrange(SMALLEST, largest) if enlarge is None else None
            ended = train_once(reference.state, folder, largest_file=limit)
            if ended.code != 0:
                num_failed += 1
                lost += _wrong_failures(ended)
                lost += [f"{path.name} is left" for path in folder.rglob(".*")]
                if enlarge is not None:
                    enlarge()
                ended = train_once(reference.state, folder)
            if ended.code != 0:
                lost.append(f"with enough space: exit code {ended.code}: {_last_line(ended)}")
            lost += compare(folder, reference.folder)
    kind = f"small disks, {num_failed} of them full"
    return Trial(kind, reference.state, num_disks, num_disks, lost)


@contextmanager
def _small_disk(place: Path, num_bytes: int) -> Iterator[Callable[[], object] | None]:
    """Context manager: mounts a tmpfs of `num_bytes` at `place`, and yields a function that
    enlarges it; yields None if it cannot be mounted.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(place)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        is_mounted = False
    if not is_mounted:
        yield None
        return
    try:
        larger = ["mount", "-o", "remount,size=1g", str(place)]
        yield lambda: subprocess.run(larger, check=True)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _wrong_failures(ended: ProcessEnd) -> list[str]:
    """What is wrong with the end of a run whose disk was full."""
    wrong = []
    if ended.code != 2 or ": error: " not in _last_line(ended):
        wrong.append(f"exit code {ended.code}: {_last_line(ended)}")
    if "Traceback" in ended.output:
        wrong.append(f"a traceback: {_last_line(ended)}")
    return wrong


def _last_line(ended: ProcessEnd) -> str:
    return (ended.output.splitlines() or [""])[-1]


# Results of a run


def compare(found: Path, expected: Path) -> list[str]:
    """The differences of the run folder `found` to `expected`, of the undisturbed run."""
    wrong = []
    for path in (step_path(Path(), NUM_STEPS), best_path(Path())):
        if not (found / path).exists():
            wrong.append(f"{path.name} is missing")
        elif not _is_same(_training(found / path), _training(expected / path)):
            wrong.append(f"{path.name} differs")
    for name, read in (("metrics.jsonl", _log), ("curves", _curve), ("files", _files)):
        if read(found) != read(expected):
            wrong.append(f"{name}: {read(found)} instead of {read(expected)}")
    return [f"{found.name}: {reason}" for reason in wrong]


def _training(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, without what differs between any two runs."""
    content = read_tensors(path)
    del content["config"]["run"], content["run_id"], content["training"]["seconds"]
    return content


def _is_same(a: Any, b: Any) -> bool:
    """Whether two nested values are the same to the last bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_is_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    return type(a) is type(b) and a == b


def _log(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without speeds."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{n: v for n, v in line.items() if not n.startswith("speed/")} for line in lines]


def _curve(folder: Path) -> list[tuple[int, float]]:
    """Steps and values of the total loss, as TensorBoard reads them."""
    points = EventAccumulator(str(folder)).Reload().Scalars("loss/total")
    return [(point.step, point.value) for point in points]


def _files(folder: Path) -> set[str]:
    """Names of all files, except the event files, of which each start writes one."""
    paths = (path for path in folder.rglob("*") if not path.name.startswith("events.out."))
    return {str(path.relative_to(folder)) for path in paths}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--kills", type=int, default=50, metavar="N", help="kills in all states together (50)"
    )
    parser.add_argument(
        "--disks", type=int, default=20, metavar="N", help="disks in all states together (20)"
    )
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES))
    parser.add_argument(
        "--no-files", dest="files", action="store_false", help="leave out the untrusted files"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of moments and sizes (0)")
    parser.add_argument("--output", metavar="FILE", help="also write the trials as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
