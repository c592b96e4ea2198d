"""Serves the newest picture of an animation on a page on this machine, as MJPEG.

A stream of JPEG pictures in one HTTP response, which every browser shows in an `img`
(multipart/x-mixed-replace). Only this machine is answered, and no other web site that is open in
its browser; see `common.page_requests`.
"""

import json
import os
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from common.errors import UserError
from common.page_requests import UNFRAMED, known_names, refusal

HOST: Final = "127.0.0.1"
MAX_VIEWERS: Final = 4  # streams at a time
MAX_CONNECTIONS: Final = 16  # requests at a time, each of which has a thread
TIMEOUT: Final = 10.0  # seconds that a connection may take to send its request, or take a picture
PAGE: Final = Path(__file__).with_name("page.html")
BOUNDARY: Final = "picture"
POLICY: Final = "Content-Security-Policy"
HEADERS: Final = UNFRAMED | {
    "Cache-Control": "no-store",
    POLICY: f"default-src 'self' 'unsafe-inline'; {UNFRAMED[POLICY]}",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Page:
    """The page; it is served inside of a `with` block, in threads.

    Args:
        port: port to listen at; 0 for any that is free.

    Attributes:
        line: text that the page shows below the picture.
        has_reference: whether the page has the button that sets the reference frame.

    Raises:
        UserError: the port is taken, or may not be used.
    """

    def __init__(self, port: int) -> None:
        self.line = ""
        self.has_reference = False
        self._changed = threading.Condition()
        self._picture: bytes | None = None
        self._number = 0  # of the picture, from 1
        self._num_viewers = 0
        self._has_ended = False
        self._is_reference_requested = False
        try:
            self._server = _Server((HOST, port), lambda *given: _Handler(self, *given))
        except OSError as error:
            raise UserError(
                f"--port {port}: the page cannot be served there, most likely because the port is "
                "taken; choose another, or 0 for any that is free"
            ) from error
        self.address = f"http://{HOST}:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def show(self, picture: bytes) -> None:
        """Show a picture, the content of a JPEG file; a viewer who is slow misses some."""
        with self._changed:
            self._picture = picture
            self._number += 1
            self._changed.notify_all()

    def take_reference_request(self) -> bool:
        """Whether a viewer asked for a new reference frame since the last call."""
        is_requested, self._is_reference_requested = self._is_reference_requested, False
        return is_requested

    def request_reference(self) -> None:
        """Note that a viewer asks for a new reference frame."""
        self._is_reference_requested = True

    def stream(self, write: Callable[[bytes], object]) -> bool:
        """Give one viewer every picture that is the newest when the last one was taken, to the end.

        Returns:
            Whether there was room for this viewer.
        """
        with self._changed:
            if self._num_viewers >= MAX_VIEWERS:
                return False
            self._num_viewers += 1
        try:
            number = 0
            while (found := self._picture_after(number)) is not None:
                number, picture = found
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}"
                write(head.encode() + b"\r\n\r\n" + picture + b"\r\n")
        finally:
            with self._changed:
                self._num_viewers -= 1
        return True

    def _picture_after(self, number: int) -> tuple[int, bytes] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._number > number or self._has_ended)
            if self._picture is None or self._has_ended:
                return None
            return self._number, self._picture


class _Server(ThreadingHTTPServer):
    allow_reuse_address = os.name == "posix"  # on Windows another program could take the port over
    daemon_threads = True
    block_on_close = False  # a viewer who does not read must not delay the end

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer who goes away is no error, and no other one is of use to the user."""


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT

    def __init__(self, page: Page, *given: Any) -> None:
        self._page = page
        super().__init__(*given)

    def do_GET(self) -> None:
        if self._is_refused():
            return
        page = self._page
        if self.path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.read_bytes())
        elif self.path == "/state":
            state = {"line": page.line, "has_reference": page.has_reference}
            self._answer(HTTPStatus.OK, "application/json", json.dumps(state).encode())
        elif self.path == "/stream":
            begun = False

            def write(part: bytes) -> None:
                nonlocal begun
                if not begun:
                    begun = True
                    self._begin(HTTPStatus.OK, f"multipart/x-mixed-replace; boundary={BOUNDARY}")
                self.wfile.write(part)

            if not page.stream(write):
                self._say(HTTPStatus.SERVICE_UNAVAILABLE, f"At most {MAX_VIEWERS} can watch.")
        else:
            self._say(HTTPStatus.NOT_FOUND, "There is no such page.")

    def do_POST(self) -> None:
        if self._is_refused():
            return
        if self.path == "/reference" and self._page.has_reference:
            self._page.request_reference()
            self._say(HTTPStatus.OK, "The next picture is the reference.")
        else:
            self._say(HTTPStatus.NOT_FOUND, "There is no such page.")

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""

    def _is_refused(self) -> bool:
        headers = {name.lower(): value for name, value in self.headers.items()}
        refused = refusal(self.command, self.path, headers, known_names(HOST, []))
        if refused is not None:
            self._say(HTTPStatus(refused.status), refused.reason)
        return refused is not None

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self._begin(status, kind, len(content))
        self.wfile.write(content)

    def _begin(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
