"""Protects the page: refuses the requests of others, limits their size, and forbids frames.

Which requests are refused, and why, and why frames are, is said in `common.page_requests`.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import UserError
from common.page_requests import UNFRAMED, Refusal, refusal
from common.safe_paths import is_file

OVERHEAD = 2**20  # bytes that a request may have besides its file
MAX_KEPT_FILES = 20  # uploads are refused while as many bytes are kept as so many largest files
MIN_BYTES = 2**16  # that a file counts for: a million empty ones take room and time, too


class Guard:
    """Wraps an application: refuses requests (see `refusal`), limits their size, forbids frames.

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method = scope.get("method", "")
        refused = refusal(method, scope["path"], headers, self._names, option="--allowed-host")
        if refused is None and method == "POST":
            refused = self._refuse_size(scope["path"], headers)
        if refused is not None:
            await PlainTextResponse(refused.reason, refused.status)(scope, receive, send)
            return

        async def send_unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in UNFRAMED.items():
                    headers.append(name, value)
            await send(message)

        await self._app(scope, receive, send_unframed)

    def _refuse_size(self, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Refuse a request that is too large, by its stated length; the server reads no more."""
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return Refusal(411, "The length of the request is missing.")
        if not path.endswith("/upload") and int(length) > OVERHEAD:
            return Refusal(413, "The request is too large.")
        if int(length) > self._max_bytes + OVERHEAD:
            return Refusal(413, f"The file is too large: at most {in_megabytes(self._max_bytes)}.")
        if path.endswith("/upload") and _num_bytes(self._folder) > MAX_KEPT_FILES * self._max_bytes:
            return Refusal(507, "There is no room for more files now; try again in an hour.")
        return None


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


def _num_bytes(folder: Path) -> int:
    """Size of all files and folders in `folder`, each at least MIN_BYTES."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # removed in the meantime
            total += max(path.lstat().st_size, MIN_BYTES)
    return total
