"""Protects the page: refuses the requests of others, limits their size, and forbids frames.

Which requests are refused, and why, and why frames are, is said in `common.page_requests`.
"""

import json
import re
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import UserError
from common.page_requests import UNFRAMED, Refusal, refusal
from common.safe_paths import is_file

OVERHEAD = 2**20  # bytes that a request may have besides its file
MAX_KEPT_FILES = 20  # uploads are refused while as many bytes are kept as so many largest files
MIN_BYTES = 2**16  # that a file counts for: a million empty ones take room and time, too
KEPT_SECONDS = 3600  # age of an old file, which is removed
_UPLOAD = "/gradio_api/upload"
# Characters of the random name of a session, of which Gradio makes ten. It keeps ten thousand of
# them, and what belongs to each, whatever their length.
LONGEST_SESSION: Final = 64
LONGEST_QUERY: Final = 2048  # bytes behind the ? of an address
# What the page sends. Gradio has further routes, such as one that gives a file to FFmpeg, and it
# also takes a path with a line end behind it.
_SENT = re.compile(rf"/login|{_UPLOAD}|/gradio_api/(queue/join|cancel|reset|run/[^/\s]+)")
# What the page reads of Gradio's interface, which also fetches addresses of other hosts (behind
# `file=`), stores the state of a session for each visit, and has streams without an end.
_INTERFACE = "/gradio_api"
_READ = re.compile(
    r"/gradio_api/(info/?|openapi\.json|startup-events|app_id|token/?|user/?|login_check/?|theme\.css"
    r"|queue/(data|status)|upload_progress|file=(/|[A-Za-z]:).*"
    rf"|heartbeat/[^/\s]{{1,{LONGEST_SESSION}}})",
    re.DOTALL,
)
# Gradio writes an upload to such a file in the folder of uploads, and moves it away at its end.
_UNFINISHED = re.compile(r"tmp[^.]+")
_NO_LENGTH = "The length of the request is missing."
_NO_ADDRESS = Refusal(404, "The page has no such address.")
_CLOCK_ERROR = 1.0  # seconds that the time of a new file may lie before that of the clock


class _Upload(NamedTuple):
    """An upload that has begun; since: time of the clock, length: stated bytes."""

    since: float
    length: int


class Guard:
    """Wraps an application: refuses requests (see `refusal`) and those that the page never sends,
    limits their size, forbids frames.

    It counts uploads that have begun, since many at once would pass each limit that only looks at
    what is there, and removes what is left of those that were broken off.

    Args:
        names: names under which the page is reached; see `known_names`.
        max_bytes: largest size of an uploaded file.
        folder: folder of the uploads.
    """

    def __init__(self, app: ASGIApp, names: Collection[str], max_bytes: int, folder: Path) -> None:
        self._app = app
        self._names = names
        self._max_bytes = max_bytes
        self._folder = folder
        self._uploads: dict[object, _Upload] = {}  # those that have begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method, path = scope.get("method", ""), _route(scope)
        refused = refusal(method, path, headers, self._names, option="--allowed-host")
        if refused is None:
            refused = self._refuse_forwarded(headers)
        if refused is None:
            refused = self._refuse_content(method, path, headers)
        if refused is None and len(scope.get("query_string", b"")) > LONGEST_QUERY:
            refused = Refusal(414, "The address is too long.")
        if refused is None and method == "POST" and path != _UPLOAD:
            content = await _content(receive)
            if content is None:
                return  # nobody waits for an answer
            receive = _replayed(content, receive)
            refused = _refuse_session(content)
        if refused is not None:
            await PlainTextResponse(refused.reason, refused.status)(scope, receive, send)
            return

        async def send_unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in UNFRAMED.items():
                    headers.append(name, value)
            await send(message)

        if method != "POST" or path != _UPLOAD:
            await self._app(scope, receive, send_unframed)
            return
        key = object()
        self._uploads[key] = _Upload(time.time(), int(headers["content-length"]))
        try:
            await self._app(scope, receive, send_unframed)
        finally:
            del self._uploads[key]
            self._remove_unfinished()

    def _refuse_forwarded(self, headers: Headers) -> Refusal | None:
        """Refuse a name of the page that only a proxy's header states: Gradio writes it into what
        it answers, where links would lead to that host.
        """
        stated = ",".join(headers.getlist("x-forwarded-host"))
        for name in filter(None, map(str.strip, stated.split(","))):
            refused = refusal("GET", "/", {"host": name}, self._names, option="--allowed-host")
            if refused is not None:
                return refused
        return None

    def _refuse_content(self, method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Refuse a request whose content goes elsewhere than to the page, or is too large by its
        stated length; the server reads no more.
        """
        if "transfer-encoding" in headers:  # the server would read on, whatever length is stated
            return Refusal(411, _NO_LENGTH)
        if method != "POST":
            is_used = not path.startswith(_INTERFACE) or _READ.fullmatch(path) or path == _UPLOAD
            return None if is_used else _NO_ADDRESS
        if not _SENT.fullmatch(path):
            return _NO_ADDRESS
        stated = headers.get("content-length", "")
        if not stated.isdecimal():
            return Refusal(411, _NO_LENGTH)
        length = int(stated)
        if path != _UPLOAD and length > OVERHEAD:
            return Refusal(413, "The request is too large.")
        if length > self._max_bytes + OVERHEAD:
            return Refusal(413, f"The file is too large: at most {in_megabytes(self._max_bytes)}.")
        if path == _UPLOAD and not self._has_room(length):
            return Refusal(507, "There is no room for more files now; try again in an hour.")
        return None

    def _has_room(self, length: int) -> bool:
        """Whether there is room for an upload of `length` bytes."""
        self._remove_unfinished()
        begun = sum(upload.length for upload in self._uploads.values())
        room = MAX_KEPT_FILES * self._max_bytes - num_bytes(self._folder)
        return room >= 0 and (not begun or begun + length <= room)

    def _remove_unfinished(self) -> None:
        """Remove the files of uploads that were broken off: Gradio does not know them any more.

        A file that is older than all uploads that have begun belongs to none of them.
        """
        now = time.time()
        oldest = min((upload.since for upload in self._uploads.values()), default=None)
        for path in self._folder.glob("tmp*"):
            with suppress(OSError):  # moved away in the meantime
                if not is_file(path) or not _UNFINISHED.fullmatch(path.name):
                    continue
                changed = path.lstat().st_mtime
                is_of_none = oldest is None or changed < oldest - _CLOCK_ERROR
                if is_of_none or changed < now - KEPT_SECONDS:
                    path.unlink()


async def _content(receive: Receive) -> bytes | None:
    """The content of a request, whose length was checked; None if its sender left meanwhile."""
    parts = []
    is_complete = False
    while not is_complete:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        is_complete = not message.get("more_body", False)
    return b"".join(parts)


def _replayed(content: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the content again, and then what comes after it."""
    first: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


def _refuse_session(content: bytes) -> Refusal | None:
    """Refuse a session with a long name; what else is wrong, the application says."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return None
    session = values.get("session_hash") if isinstance(values, dict) else None
    if isinstance(session, str) and len(session) > LONGEST_SESSION:
        return Refusal(400, "The name of the session is too long.")
    return None


def _route(scope: Scope) -> str:
    """The path by which the application finds what answers: without GRADIO_ROOT_PATH, where set."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    is_inside = bool(root) and path.startswith(root) and path[len(root) :][:1] in ("", "/")
    return path[len(root) :] if is_inside else path


def take_uploads_only(control: Any) -> None:
    """Let a control refuse addresses; Gradio would download what lies there, however large."""
    move = control.async_move_resource_to_block_cache

    async def move_upload(path: str | Path | None) -> str | None:
        if path is not None and not (Path(path).is_absolute() and is_file(Path(path))):
            raise UserError("Only uploaded files are read here.")
        return await move(path)

    control.async_move_resource_to_block_cache = move_upload


def in_megabytes(num_bytes: int) -> str:
    """Format a number of bytes, such as 1.5 MB."""
    return f"{num_bytes / 2**20:g} MB"


def num_bytes(folder: Path, least: int = MIN_BYTES) -> int:
    """Size of all files and folders in `folder`, each at least `least`."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # removed in the meantime
            total += max(path.lstat().st_size, least)
    return total
