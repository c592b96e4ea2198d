"""Lock files: one process holds the lock, and the system frees it when that process ends."""

import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from common.errors import UserError
from common.safe_paths import exists, is_file, open_plain_file, read_plain_file

_LINE: Final = re.compile(r"process [0-9]{1,10} on \S{1,255}")  # all that a lock file holds
_MAX_LINE: Final = 400  # bytes; a host's name has at most 255

_held: set[int] = set()  # descriptors of lock files


def _release_in_child() -> None:
    """Close the lock files in a forked child.

    Its copy of a descriptor would hold the lock even after the parent has ended.
    """
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a lock on the file `path` while the `with` block runs.

    The file is made at the start and deleted at the end; it stays behind only if the process is
    killed, and then nobody holds its lock. The block gets True, or False where the file system has
    no locks: then several processes may enter at once.

    Raises:
        BlockingIOError: another process holds the lock.
        UserError: `path` is not a plain file but, for example, a link; it has a second name, or
            holds something that no lock file does. It stays as it is.
        OSError: the file cannot be made.
    """
    descriptor, is_held = _acquire(path)
    _held.add(descriptor)
    try:
        with suppress(OSError):  # only people read it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield is_held
    finally:
        if descriptor in _held:  # otherwise this is a forked child, which closed it
            with suppress(OSError):
                path.unlink()
            _held.remove(descriptor)
            os.close(descriptor)


def _acquire(path: Path) -> tuple[int, bool]:
    """Open and lock the file; return its descriptor, and whether it is locked."""
    while True:
        try:
            descriptor = open_plain_file(str(path), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if exists(path) and not is_file(path):  # a folder or a socket
                raise UserError(f"{path}: is no lock file of this program; move it away") from error
            raise
        try:
            is_held = _lock(descriptor)
            if _is_at(path, descriptor):
                _require_lock_file(path, descriptor)
                return descriptor, is_held
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the last holder has just deleted this file


def _require_lock_file(path: Path, descriptor: int) -> None:
    """Raise UserError if the open file may be another one, whose content would be lost."""
    text = os.read(descriptor, _MAX_LINE + 1)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if os.fstat(descriptor).st_nlink > 1:
        raise UserError(f"{path}: is a hard link to another file, and no lock file; remove it")
    if text and (len(text) > _MAX_LINE or not _LINE.fullmatch(text.decode(errors="replace"))):
        raise UserError(f"{path}: is no lock file of this program; move it away")


def _lock(descriptor: int) -> bool:
    """Lock the open file; return False where there are no locks."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that lies at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def holder(path: Path) -> str:
    """Describe for a message who holds the lock file: `process 12 on host`."""
    try:
        text = read_plain_file(path, _MAX_LINE).decode()
    except (OSError, ValueError):
        text = ""
    return text if _LINE.fullmatch(text) and text.isprintable() else "another process"
