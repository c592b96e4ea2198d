"""How processes that were started together find each other, before they form a process group.

torchrun, or whatever else starts them, tells each its place by the environment variables in
`_NAMES`.
"""

import os
import re
import socket
import time
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import torch.distributed as dist

from errors import UserError

_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_POLL = 0.05  # seconds


class ProcessPlace(NamedTuple):
    """Of this process among `size` that were started together, and where rank 0 is to be found."""

    rank: int
    size: int
    address: str
    port: int


def read_place() -> ProcessPlace | None:
    """What the environment says; None: this process is alone.

    Raises:
        UserError: it says only a part, or nonsense.
    """
    if "WORLD_SIZE" not in os.environ or _number("WORLD_SIZE") == 1:
        return None
    absent = [name for name in _NAMES if name not in os.environ]
    if absent:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(absent)} not set; start "
            "several processes with torchrun, or unset WORLD_SIZE for one"
        )
    rank, size, _, port = map(_number, ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"))
    return ProcessPlace(rank, size, os.environ["MASTER_ADDR"], port)


def _number(name: str) -> int:
    text = os.environ[name]
    if not re.fullmatch(r"\d+", text):
        raise UserError(
            f"{name}: found {text!r} in the environment; must be a whole number, as torchrun sets "
            "it; unset WORLD_SIZE for one process"
        )
    return int(text)


def meet(place: ProcessPlace, patience: float) -> dist.Store:
    """A store for this group alone, once all its processes have come.

    torchrun's own store outlives a restart, with what processes that are gone have left in it. So
    rank 0 calls the others by names that are new with each start, and those who answer have come.

    Args:
        patience: seconds to wait for them.

    Raises:
        UserError: some did not come, or rank 0's port cannot be opened.
    """
    deadline = time.monotonic() + patience
    name = uuid.uuid4().hex
    group, missing = (name, list(range(1, place.size))) if place.rank == 0 else ("", [0])
    try:
        store = _open_store(place, deadline)
        store.set(f"name/{place.rank}", name)
        while missing and time.monotonic() < deadline:
            if place.rank == 0:
                for other in missing:
                    if store.check([f"name/{other}"]):
                        store.set(f"call/{store.get(f'name/{other}').decode()}", group)
            elif not group and store.check([f"call/{name}"]):
                group = store.get(f"call/{name}").decode()
                store.set(f"{group}/{place.rank}", "")
            if group:
                missing = [r for r in range(1, place.size) if not store.check([f"{group}/{r}"])]
            time.sleep(_POLL)
    except (RuntimeError, TimeoutError) as error:  # no answer from rank 0, or none any more
        raise _incomplete(place, [0], patience) from error
    if missing:
        raise _incomplete(place, missing, patience)
    return dist.PrefixStore(group, store)


def _open_store(place: ProcessPlace, deadline: float) -> dist.Store:
    """The key-value store of torchrun, or else of rank 0."""
    is_host = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    while not is_host:  # torch's own attempts fill the terminal
        try:
            socket.create_connection((place.address, place.port), timeout=1).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError from error
        time.sleep(_POLL)
    try:
        return dist.TCPStore(place.address, place.port, is_master=is_host, wait_for_workers=False)
    except RuntimeError as error:
        if not is_host:
            raise
        raise UserError(
            f"MASTER_PORT: {place.port} cannot be opened ({first_reason(error)}); choose another"
        ) from error


def _incomplete(place: ProcessPlace, missing: Sequence[int], patience: float) -> UserError:
    return UserError(
        f"rank {place.rank}: after {patience:g} s no sign of rank "
        f"{', '.join(map(str, missing))}, of {place.size} processes (MASTER_ADDR and MASTER_PORT: "
        f"{place.address}:{place.port}); start all of them, or wait longer with --join-timeout"
    )


def first_reason(error: RuntimeError) -> str:
    """The reason, without the place in the code where it was found."""
    return str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0].rstrip(".")
