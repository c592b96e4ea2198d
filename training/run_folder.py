"""The run folder: makes sure that only one run, in one process at a time, writes to it.

run.json    the id of the run, and the checkpoint of another run that it began from
.lock       held while a process trains into the folder
"""

import json
import os
import platform
import re
import secrets
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from checkpoints.checkpoint import Checkpoint
from checkpoints.file_checks import is_run_id
from checkpoints.folder import WRITTEN, best_path, check_names, checkpoint_folder, list_all
from common.errors import UserError
from common.file_lock import holder, locked
from common.files import add_line, make_folder, remove_leftovers, replacing
from common.json_files import parse_json, read_json
from common.safe_paths import exists, open_to_read, resolve
from common.tensor_files import read_facts
from configs.loading import dump_config
from configs.schema import Config
from logger import METRICS_FILE, PICTURES_FOLDER

RUN_FILE, LOCK_FILE = "run.json", ".lock"
CONFIG_FILE, COMMANDS_FILE = "config.yaml", "commands.jsonl"
# Names of files that are written as temporary files first; see `files.remove_leftovers`.
_TABLES = r"run\.json|config\.yaml|metrics\.jsonl"
_PICTURE = r"(train|validation)-\w+-\d{8,16}\.png"
_MAX_COMMAND = 2**22  # bytes of a line of commands.jsonl; a command has at most 2 MiB
_LIBRARIES = ("torch", "torchvision", "av", "numpy", "pydantic")
_ELSEWHERE = "choose another folder with run.output_dir=..."


class Origin(NamedTuple):
    """The checkpoint of another run that a run began from: path, run id and step."""

    checkpoint: str
    run_id: str | None
    step: int


class RunRecord(NamedTuple):
    """The content of run.json.

    origin: the checkpoint that the run began from; None if it began with initial weights.
    has_saved: whether the run has written a checkpoint.
    """

    run_id: str
    origin: Origin | None = None
    has_saved: bool = False


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Context manager: holds the lock of the run folder `folder`, so that no other process trains
    into it.

    A missing folder is made, and removed at the end if it is still empty.

    Raises:
        UserError: another process trains there, or the folder cannot be written.
    """
    new = [path for path in (folder, *folder.parents) if not exists(path)]
    lock = folder / LOCK_FILE
    with ExitStack() as stack:
        stack.callback(_remove_empty, new)
        try:
            make_folder(folder)
            stack.enter_context(locked(lock))
        except BlockingIOError:
            raise UserError(
                f"run.output_dir: {holder(lock)} trains into {folder}; wait until it ends, or "
                f"{_ELSEWHERE}"
            ) from None
        except OSError as error:
            raise UserError(
                f"run.output_dir: {folder} cannot be written ({error.strerror})"
            ) from error
        yield


def _remove_empty(folders: list[Path]) -> None:
    """Remove those of `folders` that are empty; inner folders come first."""
    for folder in folders:
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def identify(folder: Path, saved: Checkpoint | None) -> RunRecord:
    """Decide which run trains in `folder`: a new one, or the one that continues from `saved`.

    If `saved` is of another run, a new run begins from it; then the folder must hold nothing of a
    third run. A checkpoint of an earlier version has no run id, and belongs to the run in whose
    folder it lies.

    Args:
        saved: the checkpoint to continue from, or None.

    Raises:
        UserError: two runs would be mixed, a file that no run wrote would be replaced, or
            checkpoints of the run are missing.
    """
    check_names(folder)
    record, files = read_record(folder), list_all(folder)
    if saved is not None and _is_own(saved, folder, record):
        run_id = record.run_id if record is not None else saved.run_id or _new_id()
        ids = {path: read_facts(path).get("run_id") for path in files}
        for path, found in {saved.path: saved.run_id, **ids}.items():
            if found not in (None, run_id):
                raise UserError(
                    f"{path}: a checkpoint of another run than that of {folder}; move it away, or "
                    f"{_ELSEWHERE}"
                )
        return (record or RunRecord(run_id))._replace(has_saved=True)
    origin = None
    if saved is not None:
        origin = Origin(str(resolve(saved.path)), saved.run_id, saved.step)
    _require_no_checkpoints(folder, files, origin)
    if record is None:
        _require_no_other_files(folder, origin)
        return RunRecord(_new_id(), origin)
    if record.has_saved:
        raise UserError(
            f"{checkpoint_folder(folder)}: has no checkpoint, though this run saved some; mount "
            f"their disk or bring them back, or {_ELSEWHERE}; to start over, remove {folder}"
        )
    if record.origin != origin:
        begun = "a new run" if record.origin is None else f"--resume {record.origin.checkpoint}"
        raise UserError(
            f"run.output_dir: {folder} was begun as {begun}, which has saved nothing yet; start it "
            f"again like that, or {_ELSEWHERE}"
        )
    return record


def _is_own(saved: Checkpoint, folder: Path, record: RunRecord | None) -> bool:
    """Whether `saved` is a checkpoint of the run of `folder`, by its place or by its run id."""
    if resolve(saved.path).parent == resolve(checkpoint_folder(folder)):
        return True
    return record is not None and saved.run_id == record.run_id


def _require_no_checkpoints(folder: Path, files: list[Path], origin: Origin | None) -> None:
    """Raise UserError if a new run would begin in a folder that has the checkpoints `files`."""
    if not files:
        return
    found = f"run.output_dir: {folder} already has checkpoints ({files[0].name})"
    if origin is not None:
        raise UserError(f"{found}, of another run than {origin.checkpoint}; {_ELSEWHERE}")
    best = f" {files[0]}" if files[0] == best_path(folder) else ""
    raise UserError(f"{found}; continue with --resume{best}, or {_ELSEWHERE}")


def _require_no_other_files(folder: Path, origin: Origin | None) -> None:
    """Raise UserError if `folder`, which has no run.json, holds files that a run would replace.

    The files of an earlier version are accepted: such a run had saved no checkpoint, and starts
    again.
    """
    if origin is None and _is_log_of_commands(folder / COMMANDS_FILE):
        return
    names = [n for n in (CONFIG_FILE, METRICS_FILE, COMMANDS_FILE) if exists(folder / n)]
    for name in (*names, *_pictures(folder)):
        whose = "which no run wrote" if origin is None else f"not of {origin.checkpoint}"
        raise UserError(f"run.output_dir: {folder} holds {name}, {whose}; {_ELSEWHERE}")


def _is_log_of_commands(path: Path) -> bool:
    """Whether the first line of a file is as `record_command` writes it."""
    try:
        with open_to_read(path) as file:
            entry = parse_json(file.readline(_MAX_COMMAND))
    except (OSError, ValueError):
        return False
    return isinstance(entry, dict) and entry.keys() >= {"time", "command"}


def _pictures(folder: Path) -> list[str]:
    """Names of files in `folder` that a run would give to its pictures."""
    try:
        found = os.listdir(folder / PICTURES_FOLDER)
    except OSError:  # it is missing; if it cannot be read, nothing is written to it
        return []
    return [f"{PICTURES_FOLDER}/{name}" for name in sorted(found) if re.fullmatch(_PICTURE, name)]


def _new_id() -> str:
    return secrets.token_hex(8)


def read_record(folder: Path) -> RunRecord | None:
    """Read run.json; None if there is none, as in the folder of an earlier version.

    Raises:
        UserError: the file cannot be read, or is not as a run writes it.
    """
    path = folder / RUN_FILE
    try:
        content = read_json(path)
        origin = content["origin"]
        record = RunRecord(
            content["run_id"], None if origin is None else Origin(**origin), content["has_saved"]
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError):
        record = None
    if record is None or not _is_record(record):
        raise UserError(
            f"{path}: not as a run wrote it; remove it if the checkpoints beside it are of one run"
        )
    return record


def _is_record(record: RunRecord) -> bool:
    """Whether the values are as a run writes them: a checkpoint of another id would be refused."""
    origin = record.origin
    is_known = origin is None or (
        isinstance(origin.checkpoint, str)
        and (origin.run_id is None or is_run_id(origin.run_id))
        and type(origin.step) is int
    )
    return is_known and is_run_id(record.run_id) and isinstance(record.has_saved, bool)


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `record` to run.json."""
    content: dict[str, Any] = record._asdict()
    if record.origin is not None:
        content["origin"] = record.origin._asdict()
    with replacing(folder / RUN_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def record_command(
    folder: Path, config: Config, computing: Mapping[str, Any], num_processes: int
) -> None:
    """Write config.yaml, and add a line about this start of the run to commands.jsonl.

    Args:
        computing: precision, layout and threads, as in `auto_settings.Resolved.record`.
    """
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join([sys.executable, *sys.argv]),
        "num_processes": num_processes,
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        "computing": dict(computing),
    }
    with replacing(folder / CONFIG_FILE) as temporary:
        temporary.write_text(dump_config(config))
    add_line(folder / COMMANDS_FILE, json.dumps(entry))


def clean(folder: Path) -> None:
    """Delete temporary files that this run left when it was killed."""
    remove_leftovers(folder, _TABLES)
    remove_leftovers(checkpoint_folder(folder), WRITTEN)
    remove_leftovers(folder / PICTURES_FOLDER, _PICTURE)
