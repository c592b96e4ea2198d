"""The guard of the page: limits of uploads and requests, and no frames."""

import asyncio

import pytest

pytest.importorskip("starlette")

from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from common.errors import UserError
from common.page_requests import known_names
from web.guard import MAX_KEPT_FILES, MIN_BYTES, OVERHEAD, Guard, take_uploads_only

NAMES = known_names("127.0.0.1", ["Demo.Example.org"])
OWN = {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}


def test_no_room_for_more_uploads(tmp_path):
    """Other requests are still answered."""
    app = Guard(PlainTextResponse("done"), known_names("localhost", []), 10**6, tmp_path)
    client = TestClient(app, base_url="http://localhost")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(MAX_KEPT_FILES * 10**6 - 100_000))
    assert client.post("/gradio_api/upload", content=b"a").text == "done"
    (tmp_path / "other").write_bytes(bytes(100_000))
    answer = client.post("/gradio_api/upload", content=b"a")
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
    assert client.post("/upload", content=b"a", headers=OWN).text == "taken"
    (tmp_path / "another").touch()
    assert client.post("/upload", content=b"a", headers=OWN).status_code == 507


def test_the_largest_request(tmp_path):
    app = Guard(PlainTextResponse("done"), known_names("localhost", []), 1000, tmp_path)
    client = TestClient(app, base_url="http://localhost")
    assert client.post("/upload", content=bytes(1000 + OVERHEAD)).text == "done"
    answer = client.post("/upload", content=bytes(1001 + OVERHEAD))
    assert (answer.status_code, answer.text[:26]) == (413, "The file is too large: at ")
    # Other requests are read into memory, where their parts take many times as much.
    assert client.post("/queue/join", content=bytes(OVERHEAD)).text == "done"
    answer = client.post("/queue/join", content=bytes(OVERHEAD + 1))
    assert (answer.status_code, answer.text) == (413, "The request is too large.")


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
