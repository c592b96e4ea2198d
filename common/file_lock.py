"""Locks that a process holds and that its death frees, whatever has killed it."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.safe_paths import open_plain_file

_held: set[int] = set()  # descriptors of lock files


def _let_go() -> None:
    """In a child: with a copy of the descriptor it would hold the lock when its parent is gone."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock file `path` within the block; it is there no longer than that, unless the
    process is killed. False: this file system has no locks, and everybody is let in.

    Raises:
        BlockingIOError: another process holds it.
        UserError: there is something else than a plain file in its place, such as a link.
        OSError: it cannot be made.
    """
    descriptor, is_held = _acquire(path)
    _held.add(descriptor)
    try:
        with suppress(OSError):  # for people alone
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield is_held
    finally:
        if descriptor in _held:  # else this is a child
            with suppress(OSError):
                path.unlink()
            _held.remove(descriptor)
            os.close(descriptor)


def _acquire(path: Path) -> tuple[int, bool]:
    while True:
        descriptor = open_plain_file(str(path), os.O_RDWR | os.O_CREAT)
        try:
            is_held = _lock(descriptor)
            if _is_at(path, descriptor):
                return descriptor, is_held
        except BlockingIOError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has just deleted it


def _lock(descriptor: int) -> bool:
    """Whether there is a lock now."""
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
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def holder(path: Path) -> str:
    """Who holds the lock file, for people: `process 12 on host`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    return text if text.startswith("process ") and text.isprintable() else "another process"
