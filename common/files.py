"""Writes files whole or not at all, names the file when the system refuses to write, and computes a
file's SHA-256.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import IO, Any

from common.errors import UserError
from common.safe_paths import open_to_read, open_to_write

GIT_LFS_POINTER = b"version https://git-lfs"  # first bytes of a file that git-lfs has not fetched

_MAX_STEM = 180  # bytes that a temporary name takes from the file's; file systems allow 255
# Temporary names hold 16 random hexadecimal digits; those of earlier versions held a process id.
_TEMPORARY = re.compile(r"\.(.+)\.(?:[0-9a-f]{16}|\d{1,10})\.tmp(\.\w+)?")


@contextmanager
def named_failures(path: Path) -> Iterator[None]:
    """Turn an OSError in the `with` block, such as a full disk, into a UserError that names `path`.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits; OSError if it cannot be read."""
    with open_to_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_stem(path: Path) -> str:
    """Return the stem of `path`, cut to a length that leaves room for more in a name."""
    return os.fsencode(path.stem)[:_MAX_STEM].decode(errors="ignore")


def name_as_text(name: str) -> str:
    """Return the name of a file as text that can be written; other bytes than UTF-8 are escaped."""
    return name.encode(errors="backslashreplace").decode()


def temporary_name(path: Path, suffix: str | None = None) -> Path:
    """Return an unpredictable name in the folder of `path`, with the same suffix or `suffix`."""
    ending = path.suffix if suffix is None else suffix
    return path.with_name(f".{short_stem(path)}.{secrets.token_hex(8)}.tmp{ending}")


def make_folder(path: Path) -> None:
    """Make a folder and its parents if they do not exist.

    Raises:
        UserError: one of them is a link to a missing folder.
        OSError: a folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        for part in (path, *path.parents):
            if part.is_symlink() and not os.path.exists(part):
                raise UserError(
                    f"{part}: is a link to {os.readlink(part)}, which is missing; make that "
                    "folder, or remove the link"
                ) from None
        raise


def check_folder_name(path: Path) -> None:
    """Make sure that `path` is a folder, or missing, and that the system accepts the name.

    Raises:
        UserError: it is a file, or its name is, for example, too long.
    """
    with named_failures(path), suppress(FileNotFoundError):
        if not S_ISDIR(path.stat().st_mode):
            raise UserError(f"{path}: is a file; give a folder")


def check_output_file(path: Path, name: str) -> None:
    """Make sure that `--output path` names a file, and that the system accepts the name.

    Args:
        name: name of a file in that folder that the message suggests.

    Raises:
        UserError: it names a folder, or its name is, for example, too long.
    """
    is_folder = path.name in ("", "..")  # also if it does not exist
    with named_failures(path), suppress(FileNotFoundError):
        is_folder = is_folder or S_ISDIR(path.stat().st_mode)
    if is_folder:
        raise UserError(f"--output {path}: is a folder; give a file, {path / name}")


def create(path: Path) -> None:
    """Make an empty file.

    Raises:
        FileExistsError: something has this name already, be it a link that leads nowhere.
    """
    path.open("xb").close()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the `with` block a temporary file, which replaces `path` when the block ends well.

    It lies in the same folder and has the same suffix. Missing folders are made. If the block
    fails, the temporary file is deleted and an earlier `path` stays as it was.

    Raises:
        UserError: the file cannot be written.
    """
    temporary = temporary_name(path)
    try:
        with named_failures(path):
            make_folder(path.parent)
            create(temporary)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # it was renamed already, or its folder could not be made
            temporary.unlink()


class WatchedFile:
    """A file opened for writing that remembers the first OSError of a write.

    It serves libraries that report a failed write without the reason.
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
    """Delete the temporary files and folders that killed processes have left in `folder`.

    No other process may be writing there.

    Args:
        written: a regular expression for the final names of the files; temporary files of other
            names stay.
    """
    with suppress(OSError):  # a missing folder, or a file that cannot be deleted, does no harm
        for entry in os.scandir(folder):
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or not re.fullmatch(written, match[1] + (match[2] or "")):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry, ignore_errors=True)
            else:
                os.unlink(entry)


def add_line(path: Path, text: str) -> None:
    """Append a line to a file. If the last line lacks its newline, that is added first.

    A file with a second name, as in a backup by `cp -al`, is copied first: that one stays as it is.

    Raises:
        UserError: the file cannot be written, or is a link.
    """
    with named_failures(path):
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
            with replacing(path) as temporary:
                shutil.copyfile(path, temporary)
    with named_failures(path), open_to_write(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end > 0:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(f"{text}\n".encode())
