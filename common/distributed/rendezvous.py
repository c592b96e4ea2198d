"""Rendezvous: processes that were started together find each other and get a common store.

torchrun, or another launcher, gives each process its place in the environment variables `_NAMES`.
"""

import errno
import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import torch.distributed as dist

from common.errors import UserError
from common.machine import LAST_PORT, is_loopback

_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_POLL = 0.05  # seconds between two looks at the store
_LOOPBACK_NAMES = ("lo", "lo0")  # of the interface, on Linux and on macOS

logger = logging.getLogger(__name__)


class ProcessPlace(NamedTuple):
    """Place of this process among the `size` processes that were started together.

    address, port: where rank 0 is reached.
    """

    rank: int
    size: int
    address: str
    port: int


def read_place() -> ProcessPlace | None:
    """Read the place of this process from the environment; None if it was started alone.

    Raises:
        UserError: a variable is missing, is not a number, or is no port.
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
    if not 1 <= port <= LAST_PORT:  # the system would take the number modulo 2^16
        raise UserError(
            f"MASTER_PORT: found {port} in the environment; must be from 1 to {LAST_PORT}"
        )
    return ProcessPlace(rank, size, os.environ["MASTER_ADDR"], port)


def _number(name: str) -> int:
    """The environment variable `name` as a number; raises UserError if it is none."""
    text = os.environ[name]
    if not re.fullmatch(r"\d+", text):
        raise UserError(
            f"{name}: found {text!r} in the environment; must be a whole number, as torchrun sets "
            "it; unset WORLD_SIZE for one process"
        )
    return int(text)


def is_one_machine(place: ProcessPlace) -> bool:
    """Whether all processes run on this machine, as far as the environment tells."""
    return os.environ.get("LOCAL_WORLD_SIZE") == str(place.size) or is_loopback(place.address)


def loopback_interface() -> str | None:
    """Name of the loopback interface, or None if it has none of the usual names."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in _LOOPBACK_NAMES if name in names), None)


def meet(place: ProcessPlace, timeout: float) -> dist.Store:
    """Wait until all processes have started.

    torchrun's store survives a restart, with entries of processes that have ended. So each process
    takes a random name, rank 0 calls the others by these names, and only those that answer count.

    Args:
        timeout: seconds to wait for the other processes.

    Returns:
        A key-value store that only this group uses.

    Raises:
        UserError: some processes did not start, or rank 0's port cannot be opened.
    """
    deadline = time.monotonic() + timeout
    name = uuid.uuid4().hex
    group, missing = (name, list(range(1, place.size))) if place.rank == 0 else ("", [0])
    try:
        store = _open_store(place, deadline)
        store.set(f"name/{place.rank}", name)
        while missing and time.monotonic() < deadline:
            if place.rank == 0:
                for other in missing:
                    if store.check([f"name/{other}"]):
                        called = store.get(f"name/{other}").decode(errors="replace")
                        store.set(f"call/{called}", group)
            elif not group and store.check([f"call/{name}"]):
                group = store.get(f"call/{name}").decode(errors="replace")
                store.set(f"{group}/{place.rank}", "")
            if group:
                missing = [r for r in range(1, place.size) if not store.check([f"{group}/{r}"])]
            time.sleep(_POLL)
    except (RuntimeError, TimeoutError) as error:  # rank 0 does not answer, or not any more
        raise _incomplete(place, [0], timeout) from error
    if missing:
        raise _incomplete(place, missing, timeout)
    return dist.PrefixStore(group, store)


def _open_store(place: ProcessPlace, deadline: float) -> dist.Store:
    """Open the key-value store: torchrun's, or else that of rank 0, which listens at MASTER_ADDR
    only.
    """
    is_host = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    while not is_host:  # torch's own attempts to connect would fill the terminal with warnings
        try:
            socket.create_connection((place.address, place.port), timeout=1).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError from error
        time.sleep(_POLL)
    if not is_host:
        return dist.TCPStore(place.address, place.port, wait_for_workers=False)
    try:
        listener = _listen(place)
        return dist.TCPStore(
            place.address,
            place.port,
            is_master=True,
            wait_for_workers=False,
            # The store closes the listener. Without one it would listen at all addresses.
            master_listen_fd=None if listener is None else listener.detach(),
        )
    except socket.gaierror as error:
        raise UserError(
            f"MASTER_ADDR: {place.address} is no address and no known name ({error.strerror}); "
            "give the address of the machine of rank 0"
        ) from error
    except (RuntimeError, OSError) as error:
        reason = first_reason(error) if isinstance(error, RuntimeError) else error.strerror
        raise UserError(
            f"MASTER_PORT: {place.port} cannot be opened ({reason}); choose another"
        ) from error


def _listen(place: ProcessPlace) -> socket.socket | None:
    """Open a socket that listens at MASTER_ADDR.

    Returns None if the other machines could not reach that address: it is not an address of this
    machine, or it is a loopback address.

    Raises:
        OSError: the name is not known, or the port is taken.
    """
    found = socket.getaddrinfo(place.address, place.port, type=socket.SOCK_STREAM)
    # IPv4 first: if a name has addresses of both kinds, some machines may not reach IPv6.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    for family, kind, protocol, _, address in found:
        if is_loopback(str(address[0])) and not is_one_machine(place):
            continue
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRNOTAVAIL:
                raise
        else:
            return listener
    logger.warning(
        "MASTER_ADDR: other machines cannot reach this one at the address that %s has here; rank 0 "
        "listens at all addresses of this machine",
        place.address,
    )
    return None


def _incomplete(place: ProcessPlace, missing: Sequence[int], timeout: float) -> UserError:
    """The error for processes that did not start in time."""
    return UserError(
        f"rank {place.rank}: after {timeout:g} s no sign of rank "
        f"{', '.join(map(str, missing))}, of {place.size} processes (MASTER_ADDR and MASTER_PORT: "
        f"{place.address}:{place.port}); start all of them, or wait longer with --join-timeout"
    )


def first_reason(error: RuntimeError) -> str:
    """The first sentence of a message of torch, without its place in torch's sources."""
    return str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0].rstrip(".")
