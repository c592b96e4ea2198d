"""The guard of the page: limits of uploads and requests, and no frames."""

import asyncio
import json
import os
import time

import pytest

pytest.importorskip("starlette")

from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from common.errors import UserError
from common.page_requests import known_names
from web.guard import (
    LONGEST_QUERY,
    LONGEST_SESSION,
    MAX_KEPT_FILES,
    MIN_BYTES,
    OVERHEAD,
    Guard,
    take_uploads_only,
)

UPLOAD = "/gradio_api/upload"
NAMES = known_names("127.0.0.1", ["Demo.Example.org"])
OWN = {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}


def test_no_room_for_more_uploads(tmp_path):
    """Other requests are still answered."""
    app = Guard(PlainTextResponse("done"), known_names("localhost", []), 10**6, tmp_path)
    client = TestClient(app, base_url="http://localhost")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(MAX_KEPT_FILES * 10**6 - 100_000))
    assert client.post(UPLOAD, content=b"a").text == "done"
    (tmp_path / "other").write_bytes(bytes(100_000))
    answer = client.post(UPLOAD, content=b"a")
    assert answer.status_code == 507
    assert answer.text == "There is no room for more files now; try again in an hour."
    assert client.post("/gradio_api/queue/join", content=b"a").text == "done"
    answer = client.get("/")
    assert answer.text == "done"
    assert answer.headers["x-frame-options"] == "DENY"


def test_empty_files_take_room_too(tmp_path):
    max_bytes = 2 * MIN_BYTES
    client = TestClient(Guard(PlainTextResponse("taken"), NAMES, max_bytes, tmp_path))
    for number in range(2 * MAX_KEPT_FILES):
        (tmp_path / str(number)).touch()
    assert client.post(UPLOAD, content=b"a", headers=OWN).text == "taken"
    (tmp_path / "another").touch()
    assert client.post(UPLOAD, content=b"a", headers=OWN).status_code == 507


def test_the_largest_request(tmp_path):
    app = Guard(PlainTextResponse("done"), known_names("localhost", []), 1000, tmp_path)
    client = TestClient(app, base_url="http://localhost")
    assert client.post(UPLOAD, content=bytes(1000 + OVERHEAD)).text == "done"
    answer = client.post(UPLOAD, content=bytes(1001 + OVERHEAD))
    assert (answer.status_code, answer.text[:26]) == (413, "The file is too large: at ")
    # Other requests are read into memory, where their parts take many times as much.
    for path in ("/gradio_api/queue/join", "/gradio_api/run/upload"):
        assert client.post(path, content=bytes(OVERHEAD)).text == "done"
        answer = client.post(path, content=bytes(OVERHEAD + 1))
        assert (answer.status_code, answer.text) == (413, "The request is too large.")


@pytest.mark.parametrize(
    "path",
    [
        f"{UPLOAD}%0A",
        "/gradio_api/process_recording",
        "/gradio_api/run/a%0A",
        "/gradio_api/vibe-edit",
    ],
)
def test_only_what_the_page_sends_is_taken(tmp_path, path):
    """Gradio would take these: an upload past the limits, a clip for FFmpeg, code."""
    client = TestClient(Guard(PlainTextResponse("done"), NAMES, 1000, tmp_path))
    assert client.post(path, content=b"a", headers=OWN).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "file=http://example.org/a.png",
        "file=https:%2F%2Fexample.org/a.png",
        "file=train.py",
        "proxy=http://example.org/",
        "deep_link?session_hash=a",
        "dev/reload",
        "stream/a/1/2/playlist.m3u8",
        "heartbeat/a/b",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_only_what_the_page_reads_is_answered(tmp_path, method, path):
    """Gradio would fetch these from other hosts, store states of sessions, or never end."""
    client = TestClient(Guard(PlainTextResponse("done"), NAMES, 1000, tmp_path))
    assert client.request(method, f"/gradio_api/{path}", headers=OWN).status_code == 404


def test_the_folder_of_a_page_behind_a_proxy_counts_as_its_root(tmp_path):
    """Gradio takes it from GRADIO_ROOT_PATH, and then finds its routes behind it, too."""
    client = TestClient(Guard(PlainTextResponse("done"), NAMES, 1000, tmp_path), root_path="/demo")
    for path in ("file=http://example.org/a.png", "dev/reload"):
        for root in ("", "/demo"):
            assert client.get(f"{root}/gradio_api/{path}", headers=OWN).status_code == 404
    assert client.get("/demo/gradio_api/info", headers=OWN).text == "done"
    assert client.post("/demo/gradio_api/queue/join", content=b"a", headers=OWN).text == "done"
    assert (
        client.post(f"/demo{UPLOAD}", content=b"a" * 2 * OVERHEAD, headers=OWN).status_code == 413
    )


@pytest.mark.parametrize(
    "path",
    [
        "",
        "config",
        "assets/index.js",
        "gradio_api/info",
        "gradio_api/startup-events",
        "gradio_api/heartbeat/a1b2",
        "gradio_api/queue/data?session_hash=a",
        "gradio_api/upload_progress?upload_id=a",
        "gradio_api/file=/tmp/demo/a b%0A.png",
        "gradio_api/file=C:%5Cdemo%5Ca.png",
    ],
)
def test_what_the_page_reads_is_answered(tmp_path, path):
    client = TestClient(Guard(PlainTextResponse("done"), NAMES, 1000, tmp_path))
    assert client.get(f"/{path}", headers=OWN).text == "done"


def test_a_proxy_may_not_call_the_page_by_an_unknown_name(tmp_path):
    """Gradio writes that name into the page, before each of its files, and into redirections."""
    client = TestClient(Guard(PlainTextResponse("done"), NAMES, 1000, tmp_path))
    for name in ("demo.example.org", "demo.example.org:443, 127.0.0.1", "localhost", ""):
        assert client.get("/", headers=OWN | {"x-forwarded-host": name}).text == "done"
    for name in ("evil.test", "demo.example.org, evil.test", "["):
        answer = client.get("/", headers=OWN | {"x-forwarded-host": name})
        assert answer.status_code == 403
        assert "--allowed-host" in answer.text


@pytest.mark.parametrize("path", [UPLOAD, "/gradio_api/queue/join", "/login"])
@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_chunks_are_refused_whatever_length_is_stated(tmp_path, path, method):
    """The server reads chunks to their end, and ignores the length."""
    client = TestClient(Guard(PlainTextResponse("done"), NAMES, 1000, tmp_path))
    headers = OWN | {"transfer-encoding": "chunked", "content-length": "5"}
    assert client.request(method, path, headers=headers).status_code == 411


def test_uploads_at_once_do_not_pass_the_limit_together(tmp_path):
    """All begin before the first has written anything."""
    max_bytes, codes = MIN_BYTES, []

    async def app(scope, receive, send):
        await asyncio.sleep(0.1)
        await PlainTextResponse("done")(scope, receive, send)

    guard = Guard(app, NAMES, max_bytes, tmp_path)

    async def upload():
        async def receive():
            raise AssertionError

        async def send(message):
            if message["type"] == "http.response.start":
                codes.append(message["status"])

        headers = [(b"host", b"localhost"), (b"content-length", str(max_bytes).encode())]
        scope = {"type": "http", "method": "POST", "path": UPLOAD, "headers": headers}
        await guard(scope, receive, send)

    async def begin():
        await asyncio.gather(*(upload() for _ in range(2 * MAX_KEPT_FILES)))

    asyncio.run(begin())
    assert sorted(codes) == [200] * MAX_KEPT_FILES + [507] * MAX_KEPT_FILES
    asyncio.run(begin())  # they have ended, and left nothing
    assert codes.count(200) == 2 * MAX_KEPT_FILES


def test_what_is_left_of_uploads_that_were_broken_off_goes(tmp_path):
    """Gradio leaves the files of an upload whose sender went away; others' files stay."""
    (tmp_path / "examples").mkdir()
    kept = [tmp_path / "examples" / "tmpabc", tmp_path / "other.png", tmp_path / "tmpabc.png"]
    for path in kept:
        path.write_bytes(b"x")

    async def app(scope, receive, send):
        (tmp_path / "tmpk3_x9abc").write_bytes(bytes(MAX_KEPT_FILES * MIN_BYTES))
        raise ConnectionError

    client = TestClient(Guard(app, NAMES, MIN_BYTES, tmp_path))
    for _ in range(2):
        with pytest.raises(ConnectionError):
            client.post(UPLOAD, content=b"a", headers=OWN)
        assert not (tmp_path / "tmpk3_x9abc").exists()
    assert all(path.exists() for path in kept)


def test_the_file_of_an_upload_that_runs_stays(tmp_path):
    """An old one of another upload goes, though one runs."""
    current, old = tmp_path / "tmpcurrent", tmp_path / "tmpold"
    old.write_bytes(b"x")
    os.utime(old, (time.time() - 10,) * 2)

    async def inner(scope, receive, send):
        await PlainTextResponse("done")(scope, receive, send)

    async def outer(scope, receive, send):
        current.write_bytes(b"x")
        guard._app = inner
        await guard(scope, receive, send)  # another upload, which begins and ends meanwhile
        assert current.exists()
        assert not old.exists()

    guard = Guard(outer, NAMES, MIN_BYTES, tmp_path)
    assert TestClient(guard).post(UPLOAD, content=b"a", headers=OWN).text == "done"
    assert not current.exists()


def test_a_folder_is_no_upload(tmp_path):
    class Control:
        async def async_move_resource_to_block_cache(self, path):
            return path

    control = Control()
    take_uploads_only(control)
    (tmp_path / "a.png").write_bytes(b"x")
    move = control.async_move_resource_to_block_cache
    assert asyncio.run(move(str(tmp_path / "a.png"))) == str(tmp_path / "a.png")
    for path in (tmp_path, tmp_path / "missing.png", "http://localhost/a.png"):
        with pytest.raises(UserError, match="Only uploaded files"):
            asyncio.run(move(str(path)))


@pytest.mark.parametrize("path", ["queue/join", "cancel", "reset", "run/a"])
def test_sessions_with_long_names(tmp_path, path):
    """Gradio keeps the names of ten thousand sessions, which took a megabyte each."""

    async def echo(scope, receive, send):
        await PlainTextResponse((await receive())["body"])(scope, receive, send)

    client = TestClient(Guard(echo, NAMES, 1000, tmp_path))

    def answer(content):
        return client.post(f"/gradio_api/{path}", content=content, headers=OWN)

    for name, status in (("a" * LONGEST_SESSION, 200), ("a" * (LONGEST_SESSION + 1), 400)):
        content = json.dumps({"data": [name * 100], "session_hash": name}).encode()
        found = answer(content)
        assert found.status_code == status
        assert status == 400 or found.content == content
    # What is no such request, the application refuses itself.
    for content in (b"", b"[1", b"[1]", b'{"session_hash": 1}', b"[" * 100_000, b"\xff"):
        assert answer(content).content == content


def test_addresses_with_long_names_of_sessions(tmp_path):
    client = TestClient(Guard(PlainTextResponse("done"), NAMES, 1000, tmp_path))
    for place, most, status in (
        ("heartbeat/", LONGEST_SESSION, 404),
        ("queue/data?session_hash=", LONGEST_QUERY - 13, 414),
    ):
        path = f"/gradio_api/{place}{'a' * most}"
        assert client.get(path, headers=OWN).text == "done"
        assert client.get(f"{path}a", headers=OWN).status_code == status


def test_a_request_that_is_broken_off_does_not_reach_the_application(tmp_path):
    reached = []

    async def application(scope, receive, send):
        reached.append(scope["path"])

    app = Guard(application, NAMES, 1000, tmp_path)
    messages = [
        {"type": "http.request", "body": b'{"session', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return messages.pop(0)

    headers = [(name.encode(), value.encode()) for name, value in OWN.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/gradio_api/queue/join",
        "query_string": b"",
    }
    scope |= {"headers": [*headers, (b"content-length", b"100")]}
    asyncio.run(app(scope, receive, None))
    assert (reached, messages) == ([], [])
