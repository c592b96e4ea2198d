"""Checks names and paths that come from untrusted files before they are used.

A pack, a table of results or a list of pairs states the names of its clips and files. The code that
reads such a file passes every name through `check_name` or `check_inner_path`. Files in a folder
that others may have filled are opened for writing by `open_to_write`, which follows no link, and
for reading by `open_to_read`: a pipe would be waited for, and a device may never end.
"""

import errno
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from common.errors import UserError

MAX_NAME = 255  # bytes of a file's name in nearly all file systems
MAX_TEXT = 4096  # bytes of a name that never becomes a file's: the longest path of Linux
MAX_SPARSE = 2**30  # bytes; smaller files may have any number of holes
HOLES = 15  # largest number of bytes in holes for each other byte
_SHOWN = 60  # characters of a bad name that a message shows

_SEPARATOR = re.compile(r"[/\\]")
# Control characters, and those that turn the direction of text around or end a line in a terminal.
_NOT_SHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_NOT_UTF8 = re.compile(r"[\ud800-\udfff]")


def check_name(name: object, longest: int = MAX_NAME) -> str:
    """Return `name` if it is safe as the name of a file or folder on any system.

    Args:
        longest: the largest number of bytes allowed.

    Raises:
        ValueError: `name` is not text, is empty or too long, begins with a dot (as `..` does), or
            has a separator, a control character or bytes that are not UTF-8; says which.
    """
    if not isinstance(name, str):
        raise ValueError(f"found {type(name).__name__} in place of a name")
    problem = _problem(name, longest)
    if problem is not None:
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        raise ValueError(f"{shown!r} cannot be a name: {problem}")
    return name


def _problem(name: str, longest: int) -> str | None:
    if not name:
        return "it is empty"
    if name.startswith("."):
        return "it begins with a dot"
    for pattern, problem in (
        (_SEPARATOR, "it has a slash"),
        (_NOT_SHOWN, "it has a control character"),
        (_NOT_UTF8, "it has bytes that are not UTF-8"),
    ):
        if pattern.search(name):
            return problem
    num_bytes = len(name.encode())
    return f"it has {num_bytes} bytes, more than {longest}" if num_bytes > longest else None


def check_inner_path(text: str) -> Path:
    """Return `text` as a relative path if it stays inside the folder that it starts from.

    Raises:
        ValueError: the path is absolute, or `check_name` refuses one of its parts.
    """
    path = Path(text)
    if path.is_absolute():
        raise ValueError(f"{text[:_SHOWN]!r} is absolute")
    for part in path.parts or ("",):
        check_name(part)
    return path


def refuse_links(folder: Path, inner: Path) -> None:
    """Make sure that no part of the relative path `inner`, seen from `folder`, is a link.

    Raises:
        UserError: a part is a link; names the first.
    """
    path = folder
    for part in inner.parts:
        path /= part
        if os.path.islink(path):
            raise UserError(
                f"{path}: is a link, and nothing is written through links; remove it, or choose "
                "another folder"
            )


def exists(path: Path) -> bool:
    """Whether there is a file or folder of this name; not if the system refuses the name.

    `Path.exists` and its like raise an OSError for a name of 256 bytes, or a link to one.
    """
    return os.path.exists(path)


def is_file(path: Path) -> bool:
    """Whether there is a plain file, or a link to one, as `exists`."""
    return os.path.isfile(path)


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or a link to one, as `exists`."""
    return os.path.isdir(path)


def resolve(path: Path) -> Path:
    """Make a path absolute and follow its links, as far as they lead.

    `Path.resolve` fails at a link to itself.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a name with a NUL character
        return path.absolute()


def require_plain_file(path: Path) -> None:
    """Make sure that `path` is not a pipe, a device or a socket, nor a link to one.

    Folders and missing files pass; the function that opens them raises an error.

    Raises:
        UserError: `path` is a pipe, a device or a socket.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a name with a NUL character
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(_instead_of_a_plain_file(path))


def open_to_read(path: Path) -> BufferedReader:
    """Open a plain file, or the file to which a link leads, for reading.

    It waits for no pipe, even if one takes the place of the file at this moment.

    Raises:
        UserError: `path` is a pipe, a device or a socket.
        OSError: the file cannot be opened.
    """
    require_plain_file(path)  # to open some devices has effects
    return open(path, "rb", opener=_open_without_waiting)


def _open_without_waiting(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no such flag
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # `open` itself refuses a folder
        os.close(descriptor)
        raise UserError(_instead_of_a_plain_file(path))
    return descriptor


def _instead_of_a_plain_file(path: Path | str) -> str:
    return f"{path}: is not a plain file; write what comes from a pipe or a device to a file first"


def read_plain_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a plain file, or of the file to which a link leads.

    Args:
        max_bytes: largest size that is read, even if the system states a smaller one.

    Raises:
        UserError: `path` is not a plain file, or is larger.
        OSError: the file cannot be read.
    """
    with open_to_read(path) as file:
        stated = os.fstat(file.fileno()).st_size
        is_too_large = stated > max_bytes
        if not is_too_large:
            content = file.read(stated + 1)  # `read` makes room for as much as it may read
            if len(content) > stated:  # it holds more than the system states
                content += file.read(max_bytes + 1 - len(content))
            is_too_large = len(content) > max_bytes
    if is_too_large:
        raise UserError(f"{path}: is larger than the {max_bytes:,} bytes that are read of it")
    return content


def refuse_holes(path: Path, file: BufferedReader) -> None:
    """Make sure that a large file is not made of holes, which the system reads as zeros.

    Such a file takes no room on the disk, but hours or all memory to read. Small ones are not
    looked at, nor is a share of holes: some systems keep long rows of zeros as such. Where the
    system does not tell holes, nothing is refused.

    Args:
        file: the opened file at `path`; its place is not changed.

    Raises:
        UserError: more than HOLES times as many bytes of the file are holes as are not.
    """
    descriptor = file.fileno()
    end = os.fstat(descriptor).st_size
    if end <= MAX_SPARSE or not hasattr(os, "SEEK_HOLE"):
        return
    place, begin, num_bytes = os.lseek(descriptor, 0, os.SEEK_CUR), 0, 0
    try:
        while num_bytes * (HOLES + 1) < end:
            data = os.lseek(descriptor, begin, os.SEEK_DATA)
            begin = os.lseek(descriptor, data, os.SEEK_HOLE)
            num_bytes += begin - data
    except OSError as error:
        if error.errno == errno.ENXIO:  # there is no more data
            raise UserError(
                f"{path}: states {end:,} bytes, but only {num_bytes:,} of them are stored; copy "
                "or download it again"
            ) from None
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)


def open_to_write(path: Path, mode: str, **options: Any) -> IO[Any]:
    """Open a file for writing like `open`, but refuse a link, a hard link or a pipe in its place.

    Raises:
        UserError: `path` is not a plain file.
        OSError: as `open`.
    """
    return open(path, mode, opener=_open_single_file, **options)


def _open_single_file(path: str, flags: int) -> int:
    """Open a file that has no second name, under which what is written would appear, too."""
    descriptor = open_plain_file(path, flags & ~os.O_TRUNC)  # it is emptied after the check
    try:
        if os.fstat(descriptor).st_nlink > 1:
            raise UserError(
                f"{path}: is a hard link to another file, and nothing is written to it; replace it "
                "by a copy, or remove it"
            )
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_plain_file(path: str, flags: int) -> int:
    """Open a plain file like `os.open`, for use as `opener`; raises as `open_to_write`."""
    # Without O_NONBLOCK opening a pipe would wait. Windows has neither flag.
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError:
        if os.path.islink(path):
            raise UserError(_instead_of_a_file(path, "a link")) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(_instead_of_a_file(path, "not a plain file"))
    return descriptor


def _instead_of_a_file(path: str, found: str) -> str:
    return f"{path}: is {found}, and nothing is written to it; remove it"


def printable(text: str) -> str:
    """Escape the control characters of untrusted text, which could control the terminal."""
    return _NOT_SHOWN.sub(lambda found: ascii(found[0])[1:-1], text)
