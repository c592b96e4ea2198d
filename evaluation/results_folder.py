"""A folder of results that a later run replaces as a whole, and nothing else in it."""

import csv
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from datasets.container import os_reason
from datasets.video_writer import is_result
from errors import UserError
from evaluation.report import CLIPS_FILE, FRAMES_FILE, SUMMARY_FILE
from file_lock import locked
from json_files import read_json

PAGE_FILE = "index.html"
CLIPS_FOLDER = Path("clips")
SAVED_FOLDERS = {name: Path("frames") / name for name in ("driving", "prediction")}
_UNFINISHED = re.compile(r"(\.unfinished-[\w-]+?)(\.lock)?")
_EXCHANGE = "exchange.json"  # in an unfinished folder: the runs whose results change places


class _Run(NamedTuple):
    """What a run writes results of."""

    clips: Sequence[str]
    saves_frames: bool


def clip_path(name: str) -> Path:
    """Of the side-by-side video of a clip, in a folder of results."""
    return CLIPS_FOLDER / f"{name}.mp4"


@contextmanager
def replacing_results(output: Path, clips: Sequence[str], *, saves_frames: bool) -> Iterator[Path]:
    """A folder to write the results of `clips` to, which take their place in `output` at the end,
    and that of an earlier run's results. If the block fails, the earlier ones stay. If the exchange
    at the end is interrupted, every result of the new run is kept, in `output` or still in the
    unfinished folder, and the next run clears both.

    Raises:
        UserError: `output` cannot be written, or holds a file that no earlier run wrote where a
            result must go; a clip has a name that the tables cannot hold.
    """
    for name in clips:
        shown = name.encode(errors="backslashreplace").decode()
        if shown != name:
            raise UserError(f"clip {shown}: its file name is not UTF-8; rename it")
    run = _Run(clips, saves_frames)
    stranger = _find_stranger(output, run, _earlier_runs(output))
    if stranger is not None:
        raise UserError(
            f"--output {output}: holds {stranger}, which no earlier run wrote; choose another "
            "folder"
        )
    is_new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        unfinished = output / f".unfinished-{secrets.token_hex(8)}"
        with locked(_lock_of(unfinished)):
            with ExitStack() as stack:
                unfinished.mkdir()
                stack.callback(shutil.rmtree, unfinished, ignore_errors=True)
                results = unfinished / "results"
                results.mkdir()
                yield results
                stack.pop_all()  # from here on, some results may be nowhere else
            _exchange(unfinished, results, output, run)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {os_reason(error)}") from error
    finally:
        if is_new:
            with suppress(OSError):  # there are results in it
                output.rmdir()


def _exchange(unfinished: Path, results: Path, output: Path, run: _Run) -> None:
    """Move the results of `run` to `output`, then delete what earlier runs left there besides.

    First it is written down whose files these are: after an interruption `output` holds files of
    both, and the next run must know all of them.
    """
    earlier = _earlier_runs(output)  # again: another run may have ended meanwhile
    stranger = _find_stranger(output, run, earlier)
    if stranger is not None:
        raise UserError(
            f"--output {output}: holds {stranger}, which came while this run was at work; its "
            f"results are in {results} until the next run: move them, or evaluate again"
        )
    (unfinished / _EXCHANGE).write_text(json.dumps([*earlier, run]), encoding="utf-8")
    tables = (results / SUMMARY_FILE, results / CLIPS_FILE)
    moved = set()
    for path in sorted(results.rglob("*"), key=lambda path: (path not in tables, path)):
        if path.is_file():
            entry = path.relative_to(results)
            (output / entry).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, output / entry)
            moved.add(entry)
    _remove(output, _entries(earlier), moved)
    for path in (unfinished, *_abandoned(output)):
        shutil.rmtree(path, ignore_errors=True)


def _find_stranger(output: Path, run: _Run, earlier: Sequence[_Run]) -> Path | None:
    """What lies where a result of `run` must go, and is none of an `earlier` run."""
    known = _entries(earlier)
    return next((p for p in _entries([run]) if (output / p).exists() and p not in known), None)


def _entries(runs: Sequence[_Run]) -> set[Path]:
    """Files, and folders of frames, that the results of `runs` consist of."""
    entries: set[Path] = set()
    for run in runs:
        # A name comes from a file; none may lead out of the folder.
        names = [name for name in run.clips if name not in ("", "..") and Path(name).name == name]
        entries |= {Path(name) for name in (SUMMARY_FILE, CLIPS_FILE, FRAMES_FILE, PAGE_FILE)}
        entries |= {clip_path(name) for name in names}
        if run.saves_frames:
            entries |= {folder / name for folder in SAVED_FOLDERS.values() for name in names}
    return entries


def _earlier_runs(output: Path) -> list[_Run]:
    """The run that wrote `output`, where its two tables are there, and those whose exchange was
    interrupted.
    """
    runs = []
    with suppress(OSError, ValueError, KeyError, AttributeError):
        summary = read_json(output / SUMMARY_FILE)
        with (output / CLIPS_FILE).open(newline="", encoding="utf-8") as file:
            clips = [row["clip"] for row in csv.DictReader(file)]
        runs.append(_Run(clips, summary.get("saved_frames", False)))
    for unfinished in _abandoned(output):
        with suppress(OSError, ValueError, TypeError):  # killed before its exchange
            found = read_json(unfinished / _EXCHANGE)
            runs += [_Run([*map(str, clips)], saves_frames) for clips, saves_frames in found]
    return runs


def _lock_of(unfinished: Path) -> Path:
    """Held by the run that writes to this folder, from before it is there."""
    return unfinished.with_name(f"{unfinished.name}.lock")


def _abandoned(output: Path) -> list[Path]:
    """The unfinished folders of runs that are over; their locks go."""
    matches = (_UNFINISHED.fullmatch(path.name) for path in output.glob(".unfinished-*"))
    found = []
    for name in {match[1] for match in matches if match is not None}:
        with suppress(OSError), locked(_lock_of(output / name)) as is_held:  # else it is at work
            if is_held and (output / name).is_dir():
                found.append(output / name)
    return found


def _remove(output: Path, entries: Collection[Path], kept: Collection[Path]) -> None:
    """Delete results but for `kept`, of a folder the frames alone, and the folders that are empty
    then.
    """
    for entry in entries:
        path = output / entry
        if path.is_dir():
            for frame in path.iterdir():
                if is_result(frame.name) and entry / frame.name not in kept:
                    frame.unlink()
        elif entry not in kept:
            path.unlink(missing_ok=True)
        for folder in (path, *path.parents):
            if folder == output:
                break
            with suppress(OSError):  # not empty, or a file
                folder.rmdir()
