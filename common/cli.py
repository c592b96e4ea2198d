"""What the entry points share: one-line errors, the choice of the device and of the checkpoint."""

import argparse
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from common.errors import UserError
from common.limits import LIMITS, OPTION
from common.machine import divide_cores
from common.safe_paths import printable

if TYPE_CHECKING:
    import torch


def run_entry_point(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, call `main`, and turn a UserError into one line and exit code 2.

    Any other exception is a bug of ours and keeps its traceback; `--debug`, which is added to
    every parser here, shows the traceback of a UserError too.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    # Intermixed: `key=value` may stand before, between and after the options.
    arguments = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return main(arguments) or 0
    except UserError as error:
        if arguments.debug:
            raise
        # A stranger's file may have put characters in it that steer a terminal.
        lines = map(printable, str(error).split("\n"))
        print(f"{parser.prog}: error: " + "\n".join(lines), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def end_on_sigterm() -> None:
    """Let SIGTERM unwind the program as Ctrl-C does, so that nothing half written is left."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list; a second one acts at once, as usual."""
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


def add_precision_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bf16", "fp16"),
        default="auto",
        help="of the networks; auto (default): fp16 on CUDA, on a CPU bf16 where a short trial "
        "finds it fast, else float32",
    )


def add_max_pixels_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        OPTION,
        type=positive_int,
        metavar="N",
        help=f"the largest picture or frame that is read (default: {LIMITS.picture} pixels of a "
        f"picture, {LIMITS.frame} of a frame of a video)",
    )


def pick_device(name: str, local_rank: int | None = None) -> "torch.device":
    """The device called `name`; `auto` takes CUDA where there is one, else the CPU.

    Args:
        local_rank: of this process among several on this machine: its GPU is the one of that
            number.

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
                if count == 1:  # some schedulers show each process its own
                    instead += ", or set LOCAL_RANK=0 if each process sees a GPU of its own"
            raise UserError(f"--device {device}: {count} CUDA devices here; {instead}")
        torch.cuda.set_device(device.index or 0)  # also for what asks for "the" device
    elif device.type == "cpu":
        # Never more than torch takes by itself, which counts the cores that compute.
        num_threads = divide_cores(0, is_cpu=True).num_threads
        torch.set_num_threads(min(num_threads, torch.get_num_threads()))
    return device


def positive_int(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number
