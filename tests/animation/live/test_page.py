"""The page of a camera's animation: who may see it, how many, and which picture."""

import http.client
import json
import socket

import pytest

from animation.live.page import MAX_CONNECTIONS, MAX_VIEWERS, Page
from common.errors import UserError


@pytest.fixture
def page():
    with Page(0) as page:
        yield page


def port(page):
    return int(page.address.rstrip("/").rpartition(":")[2])


def ask(page, path, method="GET", **headers):
    """Status, headers and content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port(page), timeout=10)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=names)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def watch(page):
    """Begin to watch the stream; returns the file of the answer."""
    connection = socket.create_connection(("127.0.0.1", port(page)), timeout=10)
    connection.sendall(b"GET /stream HTTP/1.0\r\nHost: localhost\r\n\r\n")
    return connection.makefile("rb")


def next_picture(stream):
    while not (line := stream.readline()).startswith(b"Content-Length: "):
        assert line, "the stream has ended"
    length = int(line.split()[1])
    assert stream.readline() == b"\r\n"
    return stream.read(length)


def test_the_page_and_its_state(page):
    status, headers, content = ask(page, "/")
    assert (status, headers["X-Frame-Options"]) == (200, "DENY")
    policy = "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
    assert headers.get_all("Content-Security-Policy") == [policy]
    assert b'<img src="stream"' in content
    page.line, page.has_reference = "25.0 frames/s", True
    assert json.loads(ask(page, "/state")[2]) == {"line": "25.0 frames/s", "has_reference": True}
    assert ask(page, "/etc/passwd")[0] == 404


def test_a_viewer_gets_the_newest_picture(page):
    page.show(b"first")
    page.show(b"second")
    stream = watch(page)
    assert next_picture(stream) == b"second"
    page.show(b"third")
    assert next_picture(stream) == b"third"


def test_there_are_few_viewers(page):
    page.show(b"picture")
    streams = [watch(page) for _ in range(MAX_VIEWERS)]
    assert [next_picture(stream) for stream in streams] == [b"picture"] * MAX_VIEWERS
    status, _, content = ask(page, "/stream")
    assert (status, content) == (503, b"At most 4 can watch.\n")


def test_a_place_is_free_again(page):
    page.show(b"0")
    streams = [watch(page) for _ in range(MAX_VIEWERS)]
    for stream in streams:
        next_picture(stream)
    streams[0].raw._sock.shutdown(socket.SHUT_RDWR)
    for number in range(1, 1000):  # the server notices when it writes
        page.show(str(number).encode())
        next_picture(streams[1])
        answer = watch(page)
        if b" 200 " in answer.readline():
            return
    raise AssertionError("never free")


def test_there_are_few_connections(page):
    """Those that send nothing take their places until they time out."""
    silent = [socket.create_connection(("127.0.0.1", port(page))) for _ in range(MAX_CONNECTIONS)]
    extra = socket.create_connection(("127.0.0.1", port(page)), timeout=10)
    assert extra.recv(1) == b""  # closed at once
    silent[0].close()
    for _ in range(1000):
        try:
            assert ask(page, "/state")[0] == 200
            return
        except (ConnectionError, http.client.HTTPException):
            pass
    raise AssertionError("never free")


def test_other_sites_are_refused(page):
    """A name that another site made point here, and requests that such a site sends."""
    page.show(b"picture")
    page.has_reference = True
    for path, method in (("/", "GET"), ("/stream", "GET"), ("/reference", "POST")):
        assert ask(page, path, method, Host="evil.test")[0] == 403
    for origin in ("http://evil.test", "http://["):
        assert ask(page, "/reference", "POST", Origin=origin)[0] == 403
    assert ask(page, "/stream", Sec_Fetch_Site="cross-site")[0] == 403
    assert not page.take_reference_request()


def test_only_this_machine_is_served(page):
    assert page.address.startswith("http://127.0.0.1:")
    assert page._server.socket.getsockname()[0] == "127.0.0.1"


def test_the_request_for_a_reference(page):
    assert ask(page, "/reference", "POST")[0] == 404  # there is none
    page.has_reference = True
    assert ask(page, "/reference")[0] == 404
    assert not page.take_reference_request()
    assert ask(page, "/reference", "POST")[0] == 200
    assert [page.take_reference_request(), page.take_reference_request()] == [True, False]


def test_the_end_does_not_wait_for_viewers():
    with Page(0) as page:
        page.show(b"picture")
        stream = watch(page)
        next_picture(stream)
    assert stream.read() == b"\r\n"  # what follows the picture, and then the end


def test_a_port_that_is_taken(page):
    with pytest.raises(UserError, match=f"--port {port(page)}: .* taken; choose another"):
        Page(port(page))
