"""Kill training at random moments, fill its disk at random sizes, and look what is lost.

    python -m benchmarks.faults [--kills 50] [--disks 20] [--no-files]

Tiny runs, of 12 steps, in each state that the branches can be in:

    motion      the motion branch alone
    masks       and the mask branch; for two thirds of the steps without its refinement
    refinement  and the refinement, from the first step on
    background  refinement from the fifth, background branch from the ninth step on; with a
                discriminator and a moving average

A run that nothing disturbs says what must come out: the last checkpoint and best.pt to the last
bit, each line of the log once and with the same numbers (but for speeds), the same points for
TensorBoard, no half-written file.

    kills       SIGKILL after a random part of the time that the run takes, as often as asked for;
                each time it goes on with --resume
    full disks  too small by a random part, until it fails: with one line, exit code 2 and no
                traceback; then it goes on with room enough. A tmpfs where one can be mounted, which
                takes root; else a limit for the size of each file

    files       of a stranger (benchmarks/hostile_files.py), given to the programs

What was tried and what was lost is printed; exit code 1 if anything was.
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
from common.files import replacing
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
SMALLEST: Final = 2**16  # bytes of a file at which a disk may be full: what is printed takes some
PATIENCE: Final = 600.0  # seconds until a process that should end is given up


class Trial(NamedTuple):
    """What was tried in one state, and what came out otherwise than it should."""

    kind: str
    state: str
    num_tried: int
    num_runs: int  # that were finished and compared
    lost: list[str]


class Reference(NamedTuple):
    """A run that nothing disturbed."""

    state: str
    folder: Path
    seconds: float
    num_bytes: int


class Ended(NamedTuple):
    """How a process ended, and what it said."""

    code: int
    said: str


def main(arguments: argparse.Namespace) -> int:
    rng = random.Random(arguments.seed)
    # Semaphores of killed processes, which Python removes at the end.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of what a restart forgets
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
    """Equally often in each state."""
    for i, reference in enumerate(references):
        share = len(range(i, num_tries, len(references)))
        if share > 0:
            trial = attempt(reference, share, rng)
            print(f"{trial.kind}, {trial.state}: {share} tried, lost: {trial.lost or 'nothing'}")
            yield trial


def open_hostile_files(folder: Path, checkpoint: Path) -> Trial:
    """All of `hostile_files.FILES`; what goes wrong with one counts as lost."""
    lost = []
    for attempt in open_all(folder, checkpoint):
        found = ", ".join(attempt.problems) or attempt.said
        print(f"{attempt.name}, {attempt.seconds:.1f} s: {found}")
        lost += [f"{attempt.name}: {problem}" for problem in attempt.problems]
    return Trial("files", "of strangers", len(FILES), 0, lost)


def _row(trial: Trial) -> dict[str, str]:
    return {
        "": trial.kind,
        "state": trial.state,
        "tried": str(trial.num_tried),
        "runs compared": str(trial.num_runs),
        "lost": "; ".join(trial.lost) or "nothing",
    }


# Runs


def run_undisturbed(state: str, folder: Path) -> Reference:
    """Raises UserError where training itself fails."""
    run_folder = folder / f"{state}-undisturbed"
    warm_up = _context().Process(target=time.sleep, args=(0,))
    warm_up.start()  # imports everything, once for all
    warm_up.join()
    started = time.perf_counter()
    ended = train_once(state, run_folder)
    if ended.code != 0:
        raise UserError(f"the run that nothing disturbs fails: {ended.said.splitlines()[-1]}")
    num_bytes = sum(p.stat().st_size for p in run_folder.rglob("*") if p.is_file())
    return Reference(state, run_folder, time.perf_counter() - started, num_bytes)


def train_once(
    state: str, folder: Path, *, killed_after: float | None = None, largest_file: int | None = None
) -> Ended:
    """train.py with --resume in a process of its own, forked from one that has its imports."""
    overrides = (*tiny_overrides(), *COMMON, *STATES[state], f"run.output_dir={folder}")
    command = ["--config", "demo.yaml", *overrides, "--resume", "--device", "cpu"]
    said = folder.with_name(f"{folder.name}.txt")
    said.touch()
    process = _context().Process(target=_train, args=(command, said, largest_file))
    process.start()
    process.join(PATIENCE if killed_after is None else killed_after)
    if process.exitcode is None:
        process.kill()
        process.join()
        if killed_after is None:
            return Ended(-1, f"did not end within {PATIENCE:g} s")
    assert process.exitcode is not None
    return Ended(process.exitcode, said.read_text())


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train"])
    return context


def _train(command: Sequence[str], said: Path, largest_file: int | None) -> None:
    with said.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if largest_file is not None:
        import resource  # Windows has none

        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    sys.exit(run_entry_point(train.main, train.build_parser(), command))


# What is tried


def kill_and_resume(reference: Reference, num_kills: int, rng: random.Random) -> Trial:
    """Until so many kills are spent; each run is then let to its end."""
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
    """At so many sizes, from next to nothing to nearly enough."""
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
                lost += _untold(ended)
                lost += [f"{path.name} is left" for path in folder.rglob(".*")]
                if enlarge is not None:
                    enlarge()
                ended = train_once(reference.state, folder)
            if ended.code != 0:
                lost.append(f"with room enough: exit code {ended.code}: {_last_line(ended)}")
            lost += compare(folder, reference.folder)
    kind = f"small disks, {num_failed} of them full"
    return Trial(kind, reference.state, num_disks, num_disks, lost)


@contextmanager
def _small_disk(place: Path, num_bytes: int) -> Iterator[Callable[[], object] | None]:
    """A tmpfs at `place`, and a function that makes it larger; None where none can be mounted."""
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


def _untold(ended: Ended) -> list[str]:
    """What is wrong with how a run that found no room has ended."""
    wrong = []
    if ended.code != 2 or ": error: " not in _last_line(ended):
        wrong.append(f"exit code {ended.code}: {_last_line(ended)}")
    if "Traceback" in ended.said:
        wrong.append(f"a traceback: {_last_line(ended)}")
    return wrong


def _last_line(ended: Ended) -> str:
    return (ended.said.splitlines() or [""])[-1]


# What comes out


def compare(found: Path, expected: Path) -> list[str]:
    """In which ways the run folder `found` differs from `expected`, which nothing disturbed."""
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
    """A checkpoint, but for what is of each run alone."""
    content = read_tensors(path)
    del content["config"]["run"], content["run_id"], content["training"]["seconds"]
    return content


def _is_same(a: Any, b: Any) -> bool:
    """To the last bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_is_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    return type(a) is type(b) and a == b


def _log(folder: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{n: v for n, v in line.items() if not n.startswith("speed/")} for line in lines]


def _curve(folder: Path) -> list[tuple[int, float]]:
    points = EventAccumulator(str(folder)).Reload().Scalars("loss/total")
    return [(point.step, point.value) for point in points]


def _files(folder: Path) -> set[str]:
    """Names, but of the event files, of which each start writes one."""
    paths = (path for path in folder.rglob("*") if not path.name.startswith("events.out."))
    return {str(path.relative_to(folder)) for path in paths}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="in all states together")
    parser.add_argument("--disks", type=int, default=20, metavar="N", help="the same for disks")
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES))
    parser.add_argument(
        "--no-files", dest="files", action="store_false", help="without those of strangers"
    )
    parser.add_argument("--seed", type=int, default=0, help="of moments and sizes (0)")
    parser.add_argument("--output", metavar="FILE", help="also write what was found, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
