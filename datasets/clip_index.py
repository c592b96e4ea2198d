"""The index of a folder of clips: what opening each clip has found, for the next start.

It is a file `.clip-index.json` in the folder or, where that cannot be written, a file in the user's
cache folder. An entry counts as long as the clip has the same modification time, size and first
bytes. Anybody may have written the file: it is only believed about what a start prints and counts.
Readers open and check every clip all the same when its frames are needed.
"""

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from common.errors import UserError
from common.files import replacing
from common.json_files import MAX_BYTES, parse_rate, read_json
from common.limits import MAX_FRAMES, Limits
from common.machine import num_cores
from common.safe_paths import check_name, resolve
from datasets.inspection import Inspected, Inspection

INDEX_FILE = ".clip-index.json"
_FORMAT: Final = 1
_HEAD: Final = 4096  # bytes at the start of a file whose hash is compared
_MAX_REMARKS: Final = 8
_MAX_REMARK: Final = 200  # characters


class State(NamedTuple):
    """By what a changed clip is known: a file, or a folder of frames with its names.

    changed: time of the last modification, in ns. head: SHA-256 of the first bytes, or of names.
    """

    changed: int
    num_bytes: int
    head: str


class Entry(NamedTuple):
    """What was found when a clip had this state."""

    state: State
    found: Inspected


Index = dict[str, Entry]  # by name of the file


def states(paths: Sequence[Path]) -> list[State | None]:
    """The present states of clips; None for one that cannot be read."""
    with ThreadPoolExecutor(max_workers=num_cores()) as pool:
        return [*pool.map(_state, paths)]


def _state(path: Path) -> State | None:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            names = sorted(os.fsencode(entry.name) for entry in os.scandir(path))
            content = b"/".join(names)
        else:
            # Without O_NONBLOCK opening a pipe would wait.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            try:
                content = os.read(descriptor, _HEAD)
            finally:
                os.close(descriptor)
    except OSError:
        return None
    return State(status.st_mtime_ns, status.st_size, hashlib.sha256(content).hexdigest())


def read_index(folder: Path) -> Index:
    """The entries of the index of `folder`; none if there is no index, or a damaged one."""
    index: Index = {}
    for path in (folder / INDEX_FILE, _in_cache(folder)):
        content: Any = None
        with suppress(OSError, ValueError):  # a UserError is a ValueError, too
            content = read_json(path)
        if isinstance(content, dict) and content.get("format") == _FORMAT:
            clips = content.get("clips")
            for name, values in clips.items() if isinstance(clips, dict) else ():
                with suppress(ValueError, TypeError, ArithmeticError):
                    index[check_name(name)] = _parse(values)
    return index


def _parse(values: Sequence[Any]) -> Entry:
    """Check the values of an entry; raises ValueError or TypeError for what no clip can have."""
    changed, num_bytes, head, num_frames, height, width, rate, remarks = values
    if not all(type(value) is int for value in (changed, num_bytes, num_frames, height, width)):
        raise ValueError("a number is missing")
    if not all(0 < value <= MAX_FRAMES for value in (num_frames, height, width)):
        raise ValueError("a number is too large")
    if not isinstance(head, str) or not isinstance(remarks, list) or len(remarks) > _MAX_REMARKS:
        raise ValueError("a text is missing")
    if not all(isinstance(remark, str) and len(remark) <= _MAX_REMARK for remark in remarks):
        raise ValueError("a remark is too long")
    found = Inspected(num_frames, (height, width), parse_rate(rate), remarks)
    return Entry(State(changed, num_bytes, head), found)


def lookup(index: Index, path: Path, state: State | None, limits: Limits) -> Inspected | None:
    """What the index says of a clip; None if that does not hold, or is more than may be read."""
    entry = index.get(path.name)
    if entry is None or entry.state != state:
        return None
    height, width = entry.found.size
    return entry.found if height * width <= min(limits) else None


def new_index(
    paths: Sequence[Path], present: Sequence[State | None], found: Sequence[Inspection]
) -> Index:
    """The index of clips that are as they should be; the others are opened at every start."""
    index: Index = {}
    for path, state, clip in zip(paths, present, found, strict=True):
        if state is None or not isinstance(clip, Inspected) or clip.is_damaged:
            continue
        if (
            len(clip.remarks) <= _MAX_REMARKS
            and max(map(len, clip.remarks), default=0) <= _MAX_REMARK
        ):
            with suppress(ValueError):
                index[check_name(path.name)] = Entry(state, clip)
    return index


def write_index(folder: Path, index: Index) -> None:
    """Write the index of `folder` as a whole; nothing if no place for it can be written."""
    lines = []
    for name, (state, found) in index.items():
        values = [*state, found.num_frames, *found.size, str(found.rate), found.remarks]
        lines.append(f"{json.dumps(name)}: {json.dumps(values)}")
    body = ",\n".join(lines)
    content = f'{{"format": {_FORMAT}, "clips": {{\n{body}\n}}}}\n'.encode()
    if len(content) > MAX_BYTES:
        return
    for path in (folder / INDEX_FILE, _in_cache(folder)):
        with suppress(OSError, UserError):
            with replacing(path) as temporary:
                temporary.write_bytes(content)
            return


def _in_cache(folder: Path) -> Path:
    """The place of the index of `folder` in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = hashlib.sha256(os.fsencode(resolve(folder))).hexdigest()[:32]
    return Path(cache) / "image-animation" / f"clip-index-{name}.json"
