"""The output folder of an evaluation: a run replaces all results of earlier runs at once.

Files that no run wrote are never touched. The new results are first written to a subfolder
`.unfinished-...`; when they are complete they are exchanged for the earlier ones.
"""

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

from common.csv_cells import TableReader, as_written, open_table
from common.errors import UserError
from common.file_lock import locked
from common.files import make_folder
from common.json_files import read_json
from common.safe_paths import MAX_NAME, check_name, exists, refuse_links
from evaluation.report import CLIP_COLUMNS, CLIPS_FILE, FRAMES_FILE, SUMMARY_FILE
from media.container import os_reason
from media.video_writer import is_result

PAGE_FILE = "index.html"
CLIPS_FOLDER = Path("clips")
SAVED_FOLDERS = {name: Path("frames") / name for name in ("driving", "prediction")}
# Those of earlier versions have the process id. Other names are of somebody else.
_UNFINISHED = re.compile(r"(\.unfinished-(?:[0-9a-f]{16}|\d{1,9}-\w+))(\.lock)?")
# In an unfinished folder: the results, and the runs whose results are exchanged.
_RESULTS, _EXCHANGE = "results", "exchange.json"


class _Run(NamedTuple):
    """A run, described by the results that it writes: those of `clips`, with or without frames."""

    clips: Sequence[str]
    saves_frames: bool


def clip_path(name: str) -> Path:
    """Path of a clip's side-by-side video within a results folder."""
    return CLIPS_FOLDER / f"{name}.mp4"


@contextmanager
def replacing_results(output: Path, clips: Sequence[str], *, saves_frames: bool) -> Iterator[Path]:
    """Yield a folder for the results of `clips`; at the end of the block they move to `output` and
    replace the results of earlier runs there.

    If the block fails, the earlier results stay. If the exchange at the end is interrupted, all new
    results still exist, in `output` or in the unfinished folder, and the next run cleans up.

    Raises:
        UserError: `output` cannot be written; a result would replace a link, or a file that no
            earlier run wrote; a clip has a name that is not allowed.
    """
    for name in clips:
        try:
            _check_clip_name(name)
        except ValueError as error:
            raise UserError(f"clip {error}; rename it") from None
    run = _Run(clips, saves_frames)
    for path in _entries([run]):
        refuse_links(output, path)
    foreign = _find_foreign(output, run, _earlier_runs(output))
    if foreign is not None:
        raise UserError(
            f"--output {output}: holds {foreign}, which no earlier run wrote; choose another folder"
        )
    is_new = not exists(output)
    try:
        make_folder(output)
        unfinished = output / f".unfinished-{secrets.token_hex(8)}"
        with locked(_lock_of(unfinished)):
            with ExitStack() as stack:
                unfinished.mkdir()
                stack.callback(shutil.rmtree, unfinished, ignore_errors=True)
                results = unfinished / _RESULTS
                results.mkdir()
                yield results
                stack.pop_all()  # from here on it may hold the only copy of a result
            _exchange(unfinished, results, output, run)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {os_reason(error)}") from error
    finally:
        if is_new:
            with suppress(OSError):  # there are results in it
                output.rmdir()


def _exchange(unfinished: Path, results: Path, output: Path, run: _Run) -> None:
    """Move the results of `run` to `output`, then delete all other results of earlier runs there.

    Before that, the runs that these files belong to are recorded in a file: after an interruption
    `output` holds results of several runs, and the next run must know all of them.
    """
    earlier = _earlier_runs(output)  # read again: another run may have ended meanwhile
    for path in _entries([run]):
        refuse_links(output, path)
    foreign = _find_foreign(output, run, earlier)
    if foreign is not None:
        raise UserError(
            f"--output {output}: holds {foreign}, which appeared while this run was at work; its "
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


def _find_foreign(output: Path, run: _Run, earlier: Sequence[_Run]) -> Path | None:
    """A file that a result of `run` would replace but that no `earlier` run wrote; None if none."""
    known = _entries(earlier)
    return next((p for p in _entries([run]) if exists(output / p) and p not in known), None)


def _entries(runs: Sequence[_Run]) -> set[Path]:
    """Relative paths of the results of `runs`: files, and folders of frames."""
    entries: set[Path] = set()
    for run in runs:
        # Names of earlier runs come from a file, which may be damaged.
        names = [name for name in run.clips if _is_name(name)]
        entries |= {Path(name) for name in (SUMMARY_FILE, CLIPS_FILE, FRAMES_FILE, PAGE_FILE)}
        entries |= {clip_path(name) for name in names}
        if run.saves_frames:
            entries |= {folder / name for folder in SAVED_FOLDERS.values() for name in names}
    return entries


def _check_clip_name(name: str) -> None:
    """Raise ValueError for a name that is not allowed, or too long for the clip's video file."""
    check_name(name, MAX_NAME - len(clip_path("").name))


def _is_name(name: str) -> bool:
    try:
        _check_clip_name(name)
    except ValueError:
        return False
    return True


def _earlier_runs(output: Path) -> list[_Run]:
    """Earlier runs with results in `output`: the one whose two tables are there, and those whose
    exchange was interrupted.
    """
    runs = []
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error):
        summary = read_json(output / SUMMARY_FILE)
        with open_table(output / CLIPS_FILE) as file:
            table = TableReader(file)
            # Other programs have files of these names, too.
            if [*(table.fieldnames or ())][:2] == CLIP_COLUMNS and "metrics" in summary:
                clips = [as_written(row["clip"]) for row in table]
                runs.append(_Run(clips, summary.get("saved_frames", False)))
    for unfinished in _abandoned(output):
        # Without this file: the run was killed before its exchange, or the folder is not ours.
        with suppress(OSError, ValueError, TypeError, RecursionError):
            found = read_json(unfinished / _EXCHANGE)
            runs += [_Run([*map(str, clips)], saves_frames) for clips, saves_frames in found]
    return runs


def _lock_of(unfinished: Path) -> Path:
    """Lock file of an unfinished folder; its run holds the lock from before the folder exists."""
    return unfinished.with_name(f"{unfinished.name}.lock")


def _abandoned(output: Path) -> list[Path]:
    """Find unfinished folders whose runs have ended, and remove their lock files."""
    matches = (_UNFINISHED.fullmatch(path.name) for path in output.glob(".unfinished-*"))
    found = []
    for name in {match[1] for match in matches if match is not None}:
        with (
            suppress(OSError),
            locked(_lock_of(output / name)) as is_held,
        ):  # an error: its run is at work
            path = output / name
            if is_held and _is_unfinished(path):
                found.append(path)
    return found


def _is_unfinished(path: Path) -> bool:
    """Whether this is a folder that holds nothing but what a run puts there."""
    if not path.is_dir() or path.is_symlink():
        return False
    return {entry.name for entry in path.iterdir()} <= {_RESULTS, _EXCHANGE}


def _remove(output: Path, entries: Collection[Path], kept: Collection[Path]) -> None:
    """Delete the results `entries` except `kept`, and then the folders that have become empty.

    In folders of frames only files with names of frames are deleted. Nothing behind a link is.
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
