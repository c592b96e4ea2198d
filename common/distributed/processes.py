"""The process group of several processes (`torchrun train.py ...`): start, end, errors, and the
exchange of tensors and values. Training divides every batch among them, evaluation the clips.

A process that was started alone is rank 0 of 1: it has no process group, and the functions below do
nothing. Tensors on the CPU are exchanged over gloo, those on a GPU over NCCL. Values on the host
(`gather`, `largest`) have a gloo group of their own, with a longer timeout. Everything that is not
a tensor is sent as JSON: nothing from the network is unpickled, because that could run code.
"""

import atexit
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.cli import say
from common.distributed.rendezvous import (
    ProcessPlace,
    first_reason,
    is_one_machine,
    loopback_interface,
    meet,
    read_place,
)
from common.errors import UserError

T = TypeVar("T")

# Timeout of exchanges between hosts, in which the others wait for rank 0 while it checks all clips
# or validates. A broken connection is noticed at once; the timeout is for a process that hangs, or
# a machine that does not answer any more.
_HOST_TIMEOUT = timedelta(hours=2)
_STEP_TIMEOUT = timedelta(minutes=10)  # between two exchanges of tensors; also NCCL's watchdog's
_MAX_MESSAGE = 2**30  # bytes that `gather` accepts from a process

# Explains a message that no process of this run can have sent.
FOREIGN = "another program, or another version of this one, has joined; choose another port"

_host_group: dist.ProcessGroup | None = None  # the gloo group of the hosts
_remedy = ""  # what to do when another process is gone; see `process_group`
_has_common_error = False  # whether all processes end by the same error; see `common_error`
_exit_code: int | None = None  # with which this process ends at once; see `_end_at_once`


class PeerLost(UserError):
    """Another process has ended or does not answer; the current step may be half done."""


def rank() -> int:
    """Rank of this process, from 0."""
    return dist.get_rank() if _is_group() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _is_group() else 1


def local_rank() -> int | None:
    """Rank of this process among those of its machine, which is the index of its GPU; None for a
    process that was started alone.
    """
    return int(os.environ["LOCAL_RANK"]) if _is_group() else None


def is_main() -> bool:
    """Whether this process is rank 0, which alone writes, logs and validates."""
    return rank() == 0


def report(line: str) -> None:
    """Print `line` to stderr, without breaking the progress bar; names the rank unless it is 0."""
    say(f"rank {rank()}: {line}" if rank() > 0 else line, sys.stderr)


def say_once(line: str) -> None:
    """Print `line` to stdout as `say` does, in rank 0 only."""
    if is_main():
        say(line)


def _is_group() -> bool:
    return dist.is_available() and dist.is_initialized()


# Start and end of the group


@contextmanager
def process_group(timeout: float, remedy: str = "continue with --resume") -> Iterator[None]:
    """Context manager: the processes that were started together form a process group within it.

    Args:
        timeout: seconds to wait for all processes at the start.
        remedy: what the user can do when another process is gone, for the message.

    Raises:
        UserError: a process did not start, or cannot be reached. A UserError of the body is
            raised with the rank in front, unless it is 0.
    """
    global _remedy, _has_common_error, _exit_code
    place = read_place()
    if place is None:
        yield
        return
    _remedy, _has_common_error, _exit_code = remedy, False, None
    _join(place, timeout)
    try:
        yield
        _leave()
    except BaseException as error:
        if not (_has_common_error and _has_left()):
            _exit_code = _code_of(error)
            with suppress(RuntimeError):  # `error` is what is raised
                if dist.group.WORLD is not None:
                    dist.group.WORLD.abort()  # else an NCCL kernel would wait for this one forever
        if place.rank == 0 or not isinstance(error, UserError):
            raise
        raise UserError(f"rank {place.rank}: {error}") from error


def _code_of(error: BaseException) -> int:
    """The exit code of a process that `error` ends."""
    if isinstance(error, UserError):
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return 1


def _end_at_once() -> None:
    """At Python's end: if this process has not left the group, end it here.

    Threads of gloo may still wait for a process that is gone, and crash when they are cleaned up.
    """
    if _exit_code is not None:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(_exit_code)


def _leave() -> None:
    """Destroy the group when all processes have come here.

    A process that ends before may make threads of gloo crash the others.

    Raises:
        PeerLost: a process does not come.
    """
    largest(0.0)  # a barrier
    dist.destroy_process_group()


def _has_left() -> bool:
    """Whether `_leave` went well, for a process that an error ends already.

    That error is the one to tell, whatever comes now: another process may have been killed, or the
    user may end the waiting.
    """
    try:
        _leave()
    except BaseException:
        return False
    return True


def _join(place: ProcessPlace, timeout: float) -> None:
    """Meet the other processes and form the two groups, for tensors and for values of the host."""
    global _host_group
    atexit.register(_end_at_once)
    store = meet(place, timeout)
    if is_one_machine(place) and (interface := loopback_interface()) is not None:
        # Otherwise gloo and NCCL would listen on the network, too.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if has_nccl else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.size,
            timeout=_STEP_TIMEOUT,
        )
        _host_group = _new_gloo_group(_HOST_TIMEOUT)
    except RuntimeError as error:
        raise UserError(
            f"rank {place.rank}: all {place.size} processes have started, but they cannot connect "
            f"({first_reason(error)}); name the network to use in GLOO_SOCKET_IFNAME and "
            "NCCL_SOCKET_IFNAME"
        ) from error


def _new_gloo_group(timeout: timedelta) -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(group, dist.ProcessGroup)  # None in processes that a group leaves out
    return group


# Errors


@contextmanager
def shared_errors() -> Iterator[None]:
    """Context manager: a UserError that any process raises within it ends all processes, with one
    line from rank 0.
    """
    if not _is_group():
        yield
        return
    own = None
    try:
        yield
    except PeerLost:  # the other processes cannot be told any more
        raise
    except UserError as error:
        own = error
    try:
        if not any(largest(own is not None)):  # every step does this; `gather` would be much slower
            return
        messages = gather(None if own is None else str(own))
    except PeerLost:
        if own is None:
            raise
        raise own from own.__cause__
    found = {i: message for i, message in enumerate(messages) if message is not None}
    if len(found) == world_size() and len(set(found.values())) == 1:
        raise common_error(own or found[0]) from (None if is_main() else own)
    raise common_error("; ".join(f"rank {i}: {text}" for i, text in found.items())) from own


@contextmanager
def warned_once() -> Iterator[None]:
    """Context manager: logs warnings in rank 0 only, for what all processes do alike."""
    if is_main():
        yield
        return
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def common_error(error: UserError | str) -> BaseException:
    """The exception to raise for an error that all processes find at once, and by which all end.

    It is a UserError in rank 0, and a silent exit with code 2 in the others.
    """
    global _has_common_error
    _has_common_error = True
    if not is_main():
        return SystemExit(2)
    return UserError(error) if isinstance(error, str) else error


def check_agreement(facts: Mapping[str, object]) -> None:
    """Check that all processes have found the same `facts`.

    Raises:
        UserError: they differ; names the first fact that does.
    """
    by_rank = gather(facts)
    for name, expected in by_rank[0].items():
        for other, found in enumerate(by_rank):
            if found[name] != expected:
                raise common_error(
                    f"{name}: {expected} on rank 0, {found[name]} on rank {other}; give all "
                    "processes the same arguments, and all machines the same files"
                )


@contextmanager
def exchanging(name: str = "another process") -> Iterator[None]:
    """Context manager around every exchange: turns its failure, which means that another process is
    gone, into PeerLost.

    Args:
        name: the process to name in the message.

    gloo has no exception class of its own; its errors are known by their path in gloo's sources.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo/" not in str(error):
            raise  # an error in this program
        is_late = re.search("timed? ?out", str(error), re.IGNORECASE)
        found = "does not answer" if is_late else "has ended or cannot be reached"
        raise PeerLost(
            f"{name} {found} ({first_reason(error)}); its own message says why; {_remedy}"
        ) from error


# Exchange


def new_host_group(timeout: timedelta) -> dist.ProcessGroup:
    """Form a gloo group of all processes with another timeout; all of them must call this."""
    with exchanging():
        return _new_gloo_group(timeout)


def gather(value: T) -> list[T]:
    """Collect the `value` of every process, by rank; all processes get all values.

    Args:
        value: a value that JSON can hold: text, numbers, lists, dictionaries with text as keys.

    Raises:
        UserError: a process has sent something else.
    """
    if not _is_group():
        return [value]
    own = _pack(value)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    with exchanging():
        dist.all_gather(sizes, torch.tensor([len(own)]), group=_host_group)
    lengths = [int(size) for size in sizes]
    if not all(0 < length <= _MAX_MESSAGE for length in lengths):
        raise UserError(f"messages of {lengths} bytes, by rank: {FOREIGN}")
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: len(own)] = own
    messages = [torch.zeros_like(padded) for _ in lengths]
    with exchanging():
        dist.all_gather(messages, padded, group=_host_group)
    return [
        _unpack(message[:length], rank)
        for rank, (message, length) in enumerate(zip(messages, lengths, strict=True))
    ]


def _pack(value: object) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _unpack(message: Tensor, sender: int) -> Any:
    try:
        return json.loads(message.numpy().tobytes())
    except (ValueError, RecursionError):
        raise UserError(f"rank {sender} has sent a message that is not JSON: {FOREIGN}") from None


def largest(*values: float) -> list[float]:
    """The maximum of each value over all processes; the values are on the host."""
    if not _is_group():
        return list(values)
    joined = torch.tensor(values, dtype=torch.float64)
    with exchanging():
        dist.all_reduce(joined, dist.ReduceOp.MAX, group=_host_group)
    return joined.tolist()


def add_up(tensor: Tensor) -> None:
    """Replace `tensor`, which must be contiguous, by its sum over all processes."""
    if _is_group():
        with exchanging():
            dist.all_reduce(tensor)


def copy_networks_from_main(networks: Sequence[nn.Module]) -> None:
    """Copy the floating-point weights and buffers of rank 0 to all processes, since random numbers
    on another machine may be rounded differently.
    """
    if not _is_group():
        return
    for network in networks:
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                with exchanging():
                    dist.broadcast(tensor.detach(), src=0)
