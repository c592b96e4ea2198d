"""Writing files whole or not at all."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from common.errors import UserError
from common.safe_paths import open_to_write

GIT_LFS_POINTER = b"version https://git-lfs"  # how the stand-in of a file not yet fetched begins

_MAX_STEM = 180  # bytes of a temporary name that are those of the file; file systems take 255
# Temporary names of this version, which nobody can foresee, and of earlier ones, with a process id.
_TEMPORARY = re.compile(r"\.(.+)\.(?:[0-9a-f]{16}|\d{1,10})\.tmp(\.\w+)?")


@contextmanager
def named_failures(path: Path) -> Iterator[None]:
    """Within it what the system refuses, such as room on a full disk, is an error of `path`.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def temporary_name(path: Path, suffix: str | None = None) -> Path:
    """A name beside `path` that nobody can foresee, of the same suffix or of `suffix`."""
    stem = os.fsencode(path.stem)[:_MAX_STEM].decode(errors="ignore")
    ending = path.suffix if suffix is None else suffix
    return path.with_name(f".{stem}.{secrets.token_hex(8)}.tmp{ending}")


def create(path: Path) -> None:
    """Make an empty file.

    Raises:
        FileExistsError: there is something of this name, a link that leads nowhere too.
    """
    path.open("xb").close()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, of the same suffix, that takes its place at the end.

    Missing folders are made. If the block fails nothing is left, and an earlier file stays.

    Raises:
        UserError: the file cannot be written.
    """
    temporary = temporary_name(path)
    try:
        with named_failures(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            create(temporary)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # already renamed, or its folder could not be made
            temporary.unlink()


class WatchedFile:
    """A file to write to, which remembers the first error of the system.

    For libraries that tell of a failed write without the reason.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


def remove_leftovers(folder: Path, written: str) -> None:
    """Delete temporary files, and folders, that writers which were killed have left in `folder`.
    Nobody else may be writing there.

    Args:
        written: the regular expression of the names that were to be written; others' temporary
            files stay.
    """
    with suppress(OSError):  # the folder is not there; a file that stays does no harm
        for entry in os.scandir(folder):
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or not re.fullmatch(written, match[1] + (match[2] or "")):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry, ignore_errors=True)
            else:
                os.unlink(entry)


def add_line(path: Path, text: str) -> None:
    """Add a line to a file; behind one that was torn off, a line of its own.

    Raises:
        UserError: the file cannot be written, or is a link.
    """
    with named_failures(path), open_to_write(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end > 0:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(f"{text}\n".encode())
