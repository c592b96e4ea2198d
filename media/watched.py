"""Opens files of strangers in a process that is ended if it takes too much memory or time.

A file of a kilobyte can make FFmpeg or Pillow take gigabytes or minutes, in more ways than any
check of its bytes could know. So a small process of our own (`watched_process.py`) opens it first.
Pictures are decoded there, and their pixels are sent back. Clips are only tried there: if that went
well, this process opens the file itself.

The watched process does the same as this one would, without limits at which allocations fail:
FFmpeg ignores some failures, and would seem to do well with little. Instead its memory is looked at
every few milliseconds. Its processor time is limited by the system, and its wall time in any case.
"""

import atexit
import json
import math
import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, NamedTuple

import numpy as np

from common.errors import UserError
from common.limits import LIMITS, MAX_BYTES_PER_PIXEL, Limits, check_pixels
from media.frames import Frame

MEMORY: Final = 2**30  # bytes that opening a file may take beside the file and its picture
SECONDS: Final = 30.0  # of processor time that reading a small file may take
OPENING_SECONDS: Final = 5.0  # of them for the header of a clip: its readers open it several times
BYTES_PER_SECOND: Final = 10**7  # for each so many bytes of a file both may take a second more
WALL_FACTOR: Final = 10  # the wall time may be so many times the processor time: a machine is busy
MAX_KEPT: Final = 2**28  # bytes of memory that a process may keep after a file
MAX_PASSED: Final = 65536  # clips that are remembered; see `media.video`
POLL: Final = 0.01  # seconds between two looks at the memory
_LAST_MOMENT: Final = 5.0  # seconds for a process to end after it has closed its output

HEAD: Final = struct.Struct(">I")  # number of bytes of a message
_MAX_MESSAGE: Final = 2**20
_PIPE: Final = 2**20  # bytes
_ROOT: Final = Path(__file__).parents[1]
_MEMORY: Final = re.compile(r"^(VmRSS|RssAnon|VmSwap):\s*(\d+) kB", re.MULTILINE)
_REMEDY: Final = "write it anew with a program that you trust, or leave it out"

is_watched = False  # whether this is the watched process, which opens all files itself


class Refused(UserError):
    """A file takes too much memory or time to open, or crashes the decoder."""


class PictureFacts(NamedTuple):
    """What the header of a picture states. size: (height, width). format: by Pillow's name."""

    size: tuple[int, int]
    format: str
    is_animated: bool


def check_clip(path: Path, limits: Limits | None) -> None:
    """Make sure that a clip can be opened and read with little memory and time.

    A file that has not changed since is not tried again. It need not be a clip at all.

    Raises:
        Refused: it takes too much memory or time.
    """
    if is_watched:
        return
    try:
        status = path.stat()
    except (OSError, ValueError):
        return  # whoever opens the file meets this too
    if not S_ISREG(status.st_mode):
        return
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, limits)
    if key in _passed:
        return
    _ask("clip", path, limits, limits.frame if limits is not None else LIMITS.frame)
    if len(_passed) >= MAX_PASSED:
        with suppress(KeyError, StopIteration, RuntimeError):  # another thread was faster
            del _passed[next(iter(_passed))]
    _passed[key] = None


def read_picture(path: Path, limits: Limits) -> Frame:
    """Read a picture as uint8 RGB, H x W x 3; see `media.images.read_image`."""
    reply, picture = _ask("picture", path, limits, limits.picture)
    if picture is None:
        raise UserError(str(reply["error"]))
    return picture


def picture_facts(path: Path, limits: Limits) -> PictureFacts:
    """Read the header of a picture.

    Raises:
        UserError: the file is not a picture, or is larger than `limits` allow.
    """
    reply, _ = _ask("facts", path, limits, limits.picture)
    if "error" in reply:
        raise UserError(str(reply["error"]))
    height, width = reply["size"]
    return PictureFacts((int(height), int(width)), str(reply["format"]), bool(reply["is_animated"]))


class _Ended(Exception):
    """The watched process has ended."""


class _TooLarge(Exception):
    """The watched process has taken too much memory; holds the number of bytes allowed."""


class _TooSlow(Exception):
    """The watched process has taken too much wall time."""


class _Process:
    """A watched process. Only one thread may use it at a time."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        try:
            # -P: a file in the current folder must not take the place of a module. In a session
            # of its own Ctrl-C does not reach it.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "media.watched_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise UserError(f"{sys.executable}: cannot be started to open files: {error}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        with suppress(ImportError, AttributeError, OSError):  # Linux only; saves time
            import fcntl

            fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _PIPE)
        self._allowed: int | None = None
        self._deadline = math.inf
        self.has_header = False  # whether the process has read that of the file
        _all.append(self)
        try:
            self._receive()
        except BaseException as error:
            self.end()
            if isinstance(error, _Ended):
                raise UserError(
                    "the process that opens files does not start; `python -m "
                    "media.watched_process` in the project's folder shows why"
                ) from None
            raise
        self._idle = self._memory()

    def ask(
        self, request: Mapping[str, Any], allowed: int, most_pixels: int, wall_seconds: float
    ) -> tuple[dict[str, Any], Frame | None]:
        """Let the process open a file; return its answer, and the picture if one was asked for.

        Args:
            allowed: bytes of memory that it may take, beside those of the picture.
            most_pixels: largest size of the picture.
            wall_seconds: wall time that it may take.
        """
        self._allowed, self.has_header = allowed, False
        self._deadline = time.monotonic() + wall_seconds
        content = json.dumps(request).encode()
        try:
            self._input.write(HEAD.pack(len(content)) + content)
        except BrokenPipeError:
            raise _Ended from None
        while "pixels" in (reply := self._receive()):
            self.has_header = True
            self._allowed = allowed + MAX_BYTES_PER_PIXEL * min(int(reply["pixels"]), most_pixels)
        if request["kind"] != "picture" or "error" in reply:
            return reply, None
        height, width = map(int, reply["size"])
        check_pixels(Path(request["path"]), width, height, most_pixels, "a picture")
        picture = np.empty((height, width, 3), np.uint8)
        self._fill(picture.reshape(-1).data)
        return reply, picture

    def is_usable(self) -> bool:
        """Whether the process lives and has not kept much memory."""
        return self._process.poll() is None and self._memory() <= self._idle + MAX_KEPT

    def wait(self) -> int:
        """Wait for the end of a process that has ended, and return its code."""
        return self._process.wait()

    def end(self) -> None:
        """End the process at once."""
        if self in _all:
            _all.remove(self)
        self._process.kill()
        self.close()
        self._process.wait()

    def close(self) -> None:
        self._input.close()
        self._output.close()

    def kill(self) -> None:
        self._process.kill()

    def _receive(self) -> dict[str, Any]:
        head = bytearray(HEAD.size)
        self._fill(memoryview(head))
        (length,) = HEAD.unpack(head)
        content = bytearray(min(length, _MAX_MESSAGE))
        self._fill(memoryview(content))
        reply: dict[str, Any] = json.loads(content)
        return reply

    def _fill(self, place: memoryview) -> None:
        """Read as many bytes as fit; raises _Ended, _TooLarge and _TooSlow."""
        while len(place) > 0:
            self._wait_for_bytes()
            num_bytes = self._output.readinto(place)  # type: ignore[attr-defined]
            if not num_bytes:  # its exit code, which says why, comes a moment later
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_LAST_MOMENT)
                raise _Ended
            place = place[num_bytes:]

    def _wait_for_bytes(self) -> None:
        if not hasattr(select, "poll"):  # Windows
            return
        waiting = select.poll()
        waiting.register(self._output, select.POLLIN)
        while not waiting.poll(1000 * POLL):
            if self._allowed is not None and self._memory() > self._idle + self._allowed:
                raise _TooLarge(self._allowed)
            if time.monotonic() > self._deadline:
                raise _TooSlow

    def _memory(self) -> int:
        """Bytes of memory that the process takes for itself; 0 on systems other than Linux."""
        try:
            found = dict(_MEMORY.findall(Path(f"/proc/{self._process.pid}/status").read_text()))
        except OSError:
            return 0
        # Pages of files, as of libraries, do not count; some kernels do not tell them apart.
        pages = int(found.get("RssAnon") or found.get("VmRSS", 0))
        return 1024 * (pages + int(found.get("VmSwap", 0)))


_all: list[_Process] = []
_idle: list[_Process] = []  # several if several threads open files at once
_passed: dict[tuple[Any, ...], None] = {}  # in order; worker processes inherit it


def _ask(
    kind: str, path: Path, limits: Limits | None, most_pixels: int
) -> tuple[dict[str, Any], Frame | None]:
    """Let a watched process open the file `path`; raises Refused if it died of that."""
    num_bytes = _num_bytes(path)
    seconds = num_bytes / BYTES_PER_SECOND + SECONDS
    opening = min(num_bytes / BYTES_PER_SECOND + OPENING_SECONDS, seconds)
    folder = None
    with suppress(OSError):
        folder = os.getcwd()
    request: dict[str, Any] = {
        "kind": kind,
        "path": str(path),
        "folder": folder,
        "limits": limits,
        "seconds": seconds,
        "opening_seconds": opening if kind == "clip" else seconds,
    }
    while True:
        try:
            with _borrowed() as process:
                allowed = MEMORY + (num_bytes if kind != "clip" else 0)
                return process.ask(request, allowed, most_pixels, WALL_FACTOR * seconds)
        except _TooLarge as error:
            reason = f"takes more than {error.args[0] / 2**30:.1f} GiB of memory to open"
        except _TooSlow:
            reason = f"takes more than {WALL_FACTOR * seconds:.0f} s to open"
        except _Ended:
            code = process.wait()
            if sys.platform != "win32" and code == -signal.SIGALRM:
                continue  # it was idle for long, and ended just now
            reason = _reason(code, seconds if process.has_header else request["opening_seconds"])
        raise Refused(f"{path}: {reason}; {_REMEDY}") from None


def _num_bytes(path: Path) -> int:
    """Bytes that a file takes on the disk, at most its size: holes cost its maker nothing."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0
    on_disk = 512 * getattr(status, "st_blocks", status.st_size)  # Windows does not tell
    return min(status.st_size, on_disk)


def _reason(code: int, seconds: float) -> str:
    """Say why the process ended, by its exit code."""
    if sys.platform == "win32":
        return f"takes more than {WALL_FACTOR * SECONDS:.0f} s to open, or crashes the decoder"
    if -code == signal.SIGXCPU:
        reason = f"takes more than {seconds:.0f} s of processor time to open"
        return f"{reason}, or than `ulimit -t` allows" if _is_time_limited() else reason
    if -code == signal.SIGKILL:
        return "takes more memory to open than there is"
    return f"crashes the decoder ({f'signal {-code}' if code < 0 else f'exit code {code}'})"


def _is_time_limited() -> bool:
    """Whether the user has limited the processor time of all processes."""
    with suppress(ImportError):
        import resource  # Windows has none

        return resource.getrlimit(resource.RLIMIT_CPU)[1] != resource.RLIM_INFINITY
    return False


@contextmanager
def _borrowed() -> Iterator[_Process]:
    """Give the `with` block a process that no other thread uses; an exception ends it."""
    process = None
    while process is None:
        try:
            process = _idle.pop()
        except IndexError:
            process = _Process()
        if not process.is_usable():
            process.end()
            process = None
    timer = None
    if sys.platform == "win32":
        timer = threading.Timer(WALL_FACTOR * SECONDS, process.kill)
        timer.start()
    try:
        yield process
    except BaseException:
        process.end()
        raise
    finally:
        if timer is not None:
            timer.cancel()
    _idle.append(process)


def end_all() -> None:
    """End all watched processes of this one; the next file starts a new one."""
    while _all:
        _all[-1].end()
    _idle.clear()


def _forget_in_child() -> None:
    """Close the pipes in a forked child, which must not use them, or keep the processes alive."""
    for process in _all:
        process.close()
    _all.clear()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(end_all)
