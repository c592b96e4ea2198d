"""Code that the entry points share: errors in one line, signals, and arguments such as --device."""

import argparse
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from tqdm import tqdm

from common.errors import UserError
from common.limits import LIMITS, OPTION
from common.machine import LAST_PORT, divide_cores
from common.safe_paths import printable

if TYPE_CHECKING:
    import torch

_SIGPIPE = 13  # Windows has no such signal


def run_entry_point(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, call `main`, and turn a UserError into one line and exit code 2.

    Any other exception is a bug in this program and keeps its traceback. `--debug`, which is added
    to every parser here, shows the traceback of a UserError too. What is printed to a closed stream
    is lost. If a stream fails, as on a full disk, the program ends with one line and exit code 2;
    if nobody reads it any more, as after `| head`, without a word as if by SIGPIPE.
    """
    _replace_closed_streams()
    try:
        try:
            code = _run(main, parser, argv)
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # what fails later would be told by Python itself
        return code
    except OSError as error:
        if not (_silence_if_failed(sys.stdout) or _silence_if_failed(sys.stderr)):
            raise
        if isinstance(error, BrokenPipeError):
            return 128 + _SIGPIPE
        try:
            say(f"{parser.prog}: error: what it prints is lost: {error.strerror}", sys.stderr)
        except OSError:
            _silence_if_failed(sys.stderr)  # which lets it lead nowhere
        return 2


def _replace_closed_streams() -> None:
    """Let streams that were closed, as by `>&-`, lead nowhere."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # else a file that is opened later would get what libraries print
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _silence_if_failed(stream: TextIO) -> bool:
    """Whether a stream cannot be written to; if so, it leads nowhere from now on. A line end is
    written to find out.
    """
    try:
        stream.write("\n")  # an OSError does not tell where it comes from
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # Python itself writes the rest at the end
        os.close(nowhere)
        return True
    return False


def _run(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may not fit its encoding
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = _show_traceback
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.error = partial(_refuse, parser)  # type: ignore[method-assign]
    # Intermixed: `key=value` may stand before, between and after the options.
    arguments = parser.parse_intermixed_args(argv)
    log_warnings()
    try:
        return main(arguments) or 0
    except UserError as error:
        if arguments.debug:
            raise
        first, *others = error.lines
        say(f"{parser.prog}: error: {first}", sys.stderr)
        for line in others:
            say(line, sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def log_warnings() -> None:
    """Print warnings to stderr, a line each; for entry points and worker processes."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """End as argparse does after a wrong argument, which may be a name with control characters."""
    parser.print_usage(sys.stderr)
    say(f"{parser.prog}: error: {message}", sys.stderr)
    sys.exit(2)


def say(line: str, file: TextIO | None = None) -> None:
    """Print one line, to stdout by default, with control characters and line ends escaped.

    Untrusted names in the line cannot control the terminal, or look like another line. Progress
    bars stay below it.
    """
    file = sys.stdout if file is None else file
    tqdm.write(printable(line), file)
    file.flush()


class EscapedStream:
    """A stream that escapes control characters as `say` does, but keeps the ends of lines.

    It stands for `stream` where libraries print what strangers send, as those of the page do.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write("\n".join(map(printable, text.split("\n"))))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """False, so that no library colours what it prints: it would be escaped, too."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _show_traceback(
    kind: type[BaseException], error: BaseException, place: TracebackType | None
) -> None:
    """Print what ends the program as Python does, but with control characters escaped."""
    for line in "".join(traceback.format_exception(kind, error, place)).splitlines():
        print(printable(line), file=sys.stderr)


class _Printable(logging.Formatter):
    """Escapes log messages as `say` does."""

    def format(self, record: logging.LogRecord) -> str:
        record.msg, record.args = printable(record.getMessage()), None
        return super().format(record)


def end_on_sigterm() -> None:
    """Let SIGTERM end the program as Ctrl-C does, so that half-written files are removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM in a list; a second one ends the program as usual."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        restore()

    for number in numbers:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        restore()


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")


def add_join_timeout_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--join-timeout",
        type=positive_int,
        default=300,
        metavar="SECONDS",
        help="with torchrun: how long to wait at the start for all processes (default 300)",
    )


def add_precision_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bf16", "fp16"),
        default="auto",
        help="precision of the networks; auto (default): fp16 on CUDA; on a CPU bf16 where a short "
        "trial finds it fast, else float32",
    )


def add_max_pixels_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        OPTION,
        type=positive_int,
        metavar="N",
        help=f"read no picture or frame of more pixels (default: {LIMITS.picture} for a picture, "
        f"{LIMITS.frame} for a frame of a video)",
    )


def pick_device(name: str, local_rank: int | None = None) -> "torch.device":
    """Return the device called `name`; `auto` means CUDA if there is a GPU, else the CPU.

    Args:
        local_rank: number of this process among those on this machine, from 0; it uses the GPU of
            the same number. None for a single process.

    Raises:
        UserError: the name is unknown or this machine has no such device.
    """
    import torch  # takes seconds and memory; not every command needs it

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    match = re.fullmatch(r"cpu|mps|cuda(?::(\d+))?", name)
    if match is None:
        raise UserError(f"--device {name}: unknown; use auto, cpu, cuda, cuda:N or mps")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: not available here; use --device cpu")
    if local_rank is not None and (name == "mps" or match[1]):
        raise UserError(f"--device {name}: one device for several processes; use cuda or cpu")
    device = torch.device(name)
    if device.type == "cuda":
        if local_rank is not None:
            device = torch.device("cuda", local_rank)
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            instead = "use --device cpu or auto"
            if local_rank is not None:
                instead = "start fewer processes"
                if count == 1:  # some schedulers show each process its own GPU alone
                    instead += ", or set LOCAL_RANK=0 if each process sees a GPU of its own"
            raise UserError(f"--device {device}: {count} CUDA devices here; {instead}")
        torch.cuda.set_device(device.index or 0)  # for code that asks for the current device
    elif device.type == "cpu":
        # Never more than torch's own default, which counts physical cores only.
        num_threads = divide_cores(0, is_cpu=True).num_threads
        torch.set_num_threads(min(num_threads, torch.get_num_threads()))
    return device


def port_number(text: str, lowest: int = 0) -> int:
    """Parse the number of a TCP port, for argparse; 0 stands for any that is free."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not lowest <= int(text) <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text}: must be a port, from {lowest} to {LAST_PORT}")
    return int(text)


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number
