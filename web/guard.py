"""What stands between the network and the page: which requests it answers, and how large they are.

A browser sends requests to a page on this machine for any web site that it shows. Such a site must
not start anything here, nor read what is here, also where it made its own name point to this
machine (DNS rebinding), nor show the page in a frame of its own, where a click would be another's.
"""

import ipaddress
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.machine import is_loopback

OVERHEAD = 2**20  # bytes of a request beside the file that it brings
FULL = 20  # files of the largest size: uploads stop where so many bytes are kept
_PORTS = {"http": ":80", "https": ":443"}  # which browsers leave out
_OTHER_SITES = ("cross-site", "same-site")  # of Sec-Fetch-Site; same-site: another port
_HEADERS = {"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY"}


class Refusal(NamedTuple):
    """An answer that is none."""

    status: int
    reason: str


class Guard:
    """The application behind `refusal`, in no frame, with requests of limited size.

    Args:
        names: that the page is known by; see `known_names`.
        max_bytes: of an uploaded file.
        folder: of the uploads.
    """

    def __init__(self, app: ASGIApp, names: Collection[str], max_bytes: int, folder: Path) -> None:
        self._app = app
        self._names = names
        self._max_bytes = max_bytes
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method = scope.get("method", "")
        refused = refusal(method, scope["path"], headers, self._names)
        if refused is None and method == "POST":
            refused = self._refuse_size(scope["path"], headers)
        if refused is not None:
            await PlainTextResponse(refused.reason, refused.status)(scope, receive, send)
            return

        async def send_unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.append(name, value)
            await send(message)

        await self._app(scope, receive, send_unframed)

    def _refuse_size(self, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Browsers say how long a request is before they send it, and a server takes no more."""
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return Refusal(411, "The length of the request is missing.")
        if not path.endswith("/upload") and int(length) > OVERHEAD:
            return Refusal(413, "The request is too large.")
        if int(length) > self._max_bytes + OVERHEAD:
            return Refusal(413, f"The file is too large: at most {in_megabytes(self._max_bytes)}.")
        if path.endswith("/upload") and _num_bytes(self._folder) > FULL * self._max_bytes:
            return Refusal(507, "There is no room for more files now; try again in an hour.")
        return None


def in_megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:g} MB"


def _num_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # it has just been removed
            total += path.lstat().st_size
    return total


def refusal(
    method: str, path: str, headers: Mapping[str, str], names: Collection[str]
) -> Refusal | None:
    """Why a request is not answered; None if it comes from the page itself, or from a program
    that is no browser.

    Args:
        names: as of `known_names`.
    """
    host = headers.get("host", "").lower()
    name = _host_name(host)
    if not _is_address(name) and name not in names:
        return Refusal(
            403,
            f"This page is not known as {name!a}; if it should be, start it with "
            f"--allowed-host {name!a}.",
        )
    origin = headers.get("origin")
    if origin is not None and not _is_own(origin.lower(), host):
        return Refusal(403, "Another web site may not use this page.")
    if headers.get("sec-fetch-site") in _OTHER_SITES:
        is_link = method in ("GET", "HEAD") and headers.get("sec-fetch-dest") == "document"
        if path != "/" or not is_link:
            return Refusal(403, "Another web site may only link to this page.")
    return None


def _is_own(origin: str, host: str) -> bool:
    """Whether `origin` is the page at `host`."""
    parts = urlsplit(origin)
    port = _PORTS.get(parts.scheme)
    if port is None:  # such as `null`, of a file or a frame without rights
        return False
    return parts.netloc.removesuffix(port) == host.removesuffix(port)


def _host_name(host: str) -> str:
    """Without the port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    """An address in numbers means the same machine for everybody: nobody can have redirected it."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def known_names(host: str, allowed: Collection[str]) -> frozenset[str]:
    """The names that a page served at `host` may be asked for by; `allowed` are those given."""
    names = {"localhost", host, *allowed}
    if not is_loopback(host):
        own = socket.gethostname()
        names |= {own, f"{own}.local", socket.getfqdn()}
    return frozenset(name.lower() for name in names)
