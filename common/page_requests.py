"""Decides which requests a page on this machine answers.

Any web site in a browser can make the browser send requests to a page on this machine. Such a site
must not start or read anything here, even if it has made its own name point to this machine (DNS
rebinding).
"""

import ipaddress
import socket
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from common.machine import is_loopback

# Headers of all answers: another web site must not show the page in a frame, where a click could be
# misused.
UNFRAMED: Final = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}
_PORTS = {"http": ":80", "https": ":443"}  # ports that browsers leave out
# Values of Sec-Fetch-Site; same-site is, for example, another port.
_OTHER_SITES = ("cross-site", "same-site")


class Refusal(NamedTuple):
    """The answer to a request that is refused: HTTP status and reason."""

    status: int
    reason: str


def refusal(
    method: str,
    path: str,
    headers: Mapping[str, str],
    names: Collection[str],
    *,
    option: str | None = None,
) -> Refusal | None:
    """Why a request is refused; None if it is from the page itself, or from a program that is not a
    browser.

    Args:
        headers: by their names in lower case, or by a mapping that ignores case.
        names: names under which the page is reached; see `known_names`.
        option: the option that makes another name known, for the reason; None if there is none.
    """
    host = headers.get("host", "").lower()
    name = _host_name(host)
    if not _is_address(name) and name not in names:
        remedy = "" if option is None else f"; if it should be, start it with {option} {name!a}"
        return Refusal(403, f"This page is not known as {name!a}{remedy}.")
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
    # Not urlsplit, which fails on some of what a program may send, such as `http://[`.
    scheme, _, place = origin.partition("://")
    port = _PORTS.get(scheme)
    if port is None:  # such as the origin `null` of a file or a sandboxed frame
        return False
    return place.removesuffix(port) == host.removesuffix(port)


def _host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    """Whether `name` is an IP address, which unlike a name nobody can redirect."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def known_names(host: str, allowed: Collection[str]) -> frozenset[str]:
    """The names under which a page at `host` may be reached, including the names `allowed`."""
    names = {"localhost", host, *allowed}
    if not is_loopback(host):
        own = socket.gethostname()
        names |= {own, f"{own}.local", socket.getfqdn()}
    return frozenset(name.lower() for name in names)
