"""Several processes that train as one, each on its share of every batch: `torchrun train.py ...`.

A process that was started alone is rank 0 of 1: there is no process group, and the functions below
have nothing to do. Tensors on the CPU go over gloo, those on a GPU over NCCL; what is on the host
anyway (`gather`, `largest`) has a group of its own over gloo, which is more patient. What is no
tensor goes as JSON: nothing that comes from the network is unpickled, which could run code.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from common.errors import UserError
from training.distributed.rendezvous import (
    ProcessPlace,
    first_reason,
    is_one_machine,
    loopback_interface,
    meet,
    read_place,
)

T = TypeVar("T")

# The others wait for rank 0 while it looks at all clips, or validates. A connection that breaks is
# noticed at once; only a process that hangs, or a machine that vanishes, is waited for so long.
_LONGEST_SILENCE = timedelta(hours=2)
_LONGEST_STEP = timedelta(minutes=10)  # between two exchanges of tensors; also of NCCL's watchdog
_BUCKET = 2**24  # numbers that are exchanged at a time
_LONGEST_MESSAGE = 2**30  # bytes of `gather`


# What is wrong where a message is none of ours.
_STRANGER = "another program, or another version of this one, has joined; choose another port"

_host_group: dist.ProcessGroup | None = None  # of gloo alone


class PeerLost(UserError):
    """Another process is gone; if it went within a step, that step is half done."""


def rank() -> int:
    """Of this process among all."""
    return dist.get_rank() if _is_group() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if _is_group() else 1


def local_rank() -> int | None:
    """Of this process among those of its machine, each of which takes a GPU; None: it is alone."""
    return int(os.environ["LOCAL_RANK"]) if _is_group() else None


def is_main() -> bool:
    """Whether this is the one process that writes, logs and validates."""
    return rank() == 0


def report(line: str) -> None:
    """A line of this process for the person at the terminal."""
    tqdm.write(f"rank {rank()}: {line}" if rank() > 0 else line, file=sys.stderr)


def _is_group() -> bool:
    return dist.is_available() and dist.is_initialized()


# ClipContext and end


@contextmanager
def process_group(patience: float) -> Iterator[None]:
    """Within it the processes that were started together form a group.

    Args:
        patience: seconds to wait for all of them.

    Raises:
        UserError: not all came, or cannot be reached; that of the body, with the rank.
    """
    place = read_place()
    if place is None:
        yield
        return
    _join(place, patience)
    try:
        yield
    except BaseException as error:
        if dist.group.WORLD is not None:
            dist.group.WORLD.abort()  # a kernel of NCCL would wait on the GPU for who does not come
        if place.rank == 0 or not isinstance(error, UserError):
            raise
        raise UserError(f"rank {place.rank}: {error}") from error
    largest(0.0)  # nobody leaves while another still needs it
    dist.destroy_process_group()


def _join(place: ProcessPlace, patience: float) -> None:
    global _host_group
    store = meet(place, patience)
    if is_one_machine(place) and (interface := loopback_interface()) is not None:
        # Else both would listen on the network as well.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if has_nccl else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.size,
            timeout=_LONGEST_STEP,
        )
        own_group = dist.new_group(backend="gloo", timeout=_LONGEST_SILENCE)
    except RuntimeError as error:
        raise UserError(
            f"rank {place.rank}: all {place.size} processes came, but they cannot connect "
            f"({first_reason(error)}); name the network to use in GLOO_SOCKET_IFNAME and "
            "NCCL_SOCKET_IFNAME"
        ) from error
    assert isinstance(own_group, dist.ProcessGroup)
    _host_group = own_group


# Errors


@contextmanager
def shared_errors() -> Iterator[None]:
    """A UserError that any process meets within it ends all of them, with one line from rank 0."""
    if not _is_group():
        yield
        return
    own = None
    try:
        yield
    except PeerLost:  # there is nobody to tell
        raise
    except UserError as error:
        own = error
    if not any(largest(own is not None)):  # much faster than `gather`, and in every step
        return
    messages = gather(None if own is None else str(own))
    found = {i: message for i, message in enumerate(messages) if message is not None}
    if len(found) == world_size() and len(set(found.values())) == 1:
        raise common_error(found[0]) from own
    raise common_error("; ".join(f"rank {i}: {text}" for i, text in found.items())) from own


def common_error(message: str) -> BaseException:
    """For an error that all processes meet at once: rank 0 alone says so."""
    return UserError(message) if is_main() else SystemExit(2)


def check_agreement(facts: Mapping[str, object]) -> None:
    """Make sure that all processes have found the same.

    Raises:
        UserError: one has not; names the first fact that differs.
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
def _peers() -> Iterator[None]:
    """Around every exchange: one that fails on its way means that another process is gone.

    gloo has no errors of its own: what it raises names the place in its sources.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo/" not in str(error):
            raise  # a bug of ours
        is_late = re.search("timed? ?out", str(error), re.IGNORECASE)
        found = "does not answer" if is_late else "has ended or cannot be reached"
        raise PeerLost(
            f"another process {found} ({first_reason(error)}); its own message says why; continue "
            "with --resume"
        ) from error


# Exchange


def gather(value: T) -> list[T]:
    """The `value` of every process, by rank; on the host.

    Args:
        value: what JSON can say: text, numbers, lists, dictionaries whose keys are texts.

    Raises:
        UserError: a process has sent something else.
    """
    if not _is_group():
        return [value]
    own = _pack(value)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    with _peers():
        dist.all_gather(sizes, torch.tensor([len(own)]), group=_host_group)
    lengths = [int(size) for size in sizes]
    if not all(0 < length <= _LONGEST_MESSAGE for length in lengths):
        raise UserError(f"messages of {lengths} bytes, by rank: {_STRANGER}")
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: len(own)] = own
    messages = [torch.zeros_like(padded) for _ in lengths]
    with _peers():
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
        raise UserError(f"rank {sender} has sent what is no JSON: {_STRANGER}") from None


def largest(*values: float) -> list[float]:
    """The largest of each over all processes, on the host."""
    if not _is_group():
        return list(values)
    joined = torch.tensor(values, dtype=torch.float64)
    with _peers():
        dist.all_reduce(joined, dist.ReduceOp.MAX, group=_host_group)
    return joined.tolist()


def add_up(tensor: Tensor) -> None:
    """Replace `tensor`, which must be contiguous, by its sum over all processes."""
    if _is_group():
        with _peers():
            dist.all_reduce(tensor)


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all processes."""

    def mean(flat: Tensor) -> None:
        add_up(flat)
        flat.div_(world_size())

    if _is_group():
        _in_buckets(tensors, mean)


def copy_from_main(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by that of rank 0."""

    def copy(flat: Tensor) -> None:
        with _peers():
            dist.broadcast(flat, src=0)

    if _is_group():
        _in_buckets(tensors, copy)


def copy_networks_from_main(networks: Sequence[nn.Module]) -> None:
    """Take over the weights and buffers of rank 0, since another machine rounds what it draws
    differently.
    """
    tensors = [t for network in networks for t in (*network.parameters(), *network.buffers())]
    copy_from_main([tensor for tensor in tensors if tensor.is_floating_point()])


@torch.no_grad()
def _in_buckets(tensors: Sequence[Tensor], exchange: Callable[[Tensor], None]) -> None:
    """Let `exchange` change the tensors, many at a time as one long vector: few large messages."""
    buckets: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        if tensor.numel() > room:
            buckets.append([])
            room = _BUCKET
        buckets[-1].append(tensor)
        room -= tensor.numel()
    for bucket in buckets:
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        exchange(flat)
        parts = flat.split([tensor.numel() for tensor in bucket])
        views = [part.view_as(tensor) for part, tensor in zip(parts, bucket, strict=True)]
        torch._foreach_copy_(bucket, views)
