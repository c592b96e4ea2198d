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

from common.csv_cells import as_written
from common.errors import UserError
from common.file_lock import locked
from common.json_files import read_json
from common.safe_paths import MAX_NAME, check_name, refuse_links
from evaluation.report import CLIPS_FILE, FRAMES_FILE, SUMMARY_FILE
from media.container import os_reason
from media.video_writer import is_result

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
        UserError: `output` cannot be written, or holds a file that no earlier run wrote, or a link,
            where a result must go; a clip has a name that no result can have.
    """
    for name in clips:
        try:
            _check_clip_name(name)
        except ValueError as error:
            raise UserError(f"clip {error}; rename it") from None
    run = _Run(clips, saves_frames)
    for path in _entries([run]):
        refuse_links(output, path)
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
    for path in _entries([run]):
        refuse_links(output, path)
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
        names = [name for name in run.clips if _is_name(name)]  # of earlier runs, from a file
        entries |= {Path(name) for name in (SUMMARY_FILE, CLIPS_FILE, FRAMES_FILE, PAGE_FILE)}
        entries |= {clip_path(name) for name in names}
        if run.saves_frames:
            entries |= {folder / name for folder in SAVED_FOLDERS.values() for name in names}
    return entries


def _check_clip_name(name: str) -> None:
    """Raise ValueError for a name that is none, or too long for that of a clip's video."""
    check_name(name, MAX_NAME - len(clip_path("").name))


def _is_name(name: str) -> bool:
    try:
        _check_clip_name(name)
    except ValueError:
        return False
    return True


def _earlier_runs(output: Path) -> list[_Run]:
    """The run that wrote `output`, where its two tables are there, and those whose exchange was
    interrupted.
    """
    runs = []
    with suppress(OSError, ValueError, KeyError, AttributeError, RecursionError, csv.Error):
        summary = read_json(output / SUMMARY_FILE)
        with (output / CLIPS_FILE).open(newline="", encoding="utf-8") as file:
            clips = [as_written(row["clip"]) for row in csv.DictReader(file)]
        runs.append(_Run(clips, summary.get("saved_frames", False)))
    for unfinished in _abandoned(output):
        # Killed before its exchange, or not ours.
        with suppress(OSError, ValueError, TypeError, RecursionError):
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
            path = output / name
            if is_held and path.is_dir() and not path.is_symlink():
                found.append(path)
    return found


def _remove(output: Path, entries: Collection[Path], kept: Collection[Path]) -> None:
    """Delete results but for `kept`, of a folder the frames alone, and the folders that are empty
    then. What lies behind a link stays.
    """
    for entry in entries:
        path = output / entry
        if any((output / folder).is_symlink() for folder in (entry, *entry.parents[:-1])):
            continue
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
