"""Safety of the page: accounts, limits, and requests of other web sites."""

import http.client
import http.server
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.helpers.media import numbered_frame, write_clip
from tests.helpers.pages import (
    PATIENCE,
    box,
    chromium,
    download,
    give,
    message,
    press_animate,
    served,
)
from tests.helpers.runs import call, error_line, step_file
from web import __main__ as demo

LONG = 3000  # frames: more than ten seconds
BEGUN = re.compile("/3k frames")  # the progress of an animation of LONG frames
ACCOUNT = ("anna", "a:long password")
LIMITS = ("--max-upload", 1, "--max-frames", LONG, "--max-waiting", 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """source.png, driving.mp4 (10 frames), long.mp4 (LONG frames), text.mp4, large.png (2 MB)."""
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(numbered_frame(21, (32, 32))).save(folder / "source.png")
    write_clip(folder / "driving.mp4", 10, (32, 32))
    write_clip(folder / "long.mp4", LONG, (32, 32), gop=100)
    (folder / "text.mp4").write_text("not a clip\n")
    (folder / "large.png").write_bytes(bytes(2 * 2**20))
    return folder


@pytest.fixture(scope="module")
def address(tiny_run, tmp_path_factory) -> Iterator[str]:
    """The address of a page with a password and limits."""
    folder, checkpoint = tmp_path_factory.mktemp("temporary"), step_file(tiny_run, 8)
    with served(folder, checkpoint, *LIMITS, DEMO_AUTH=":".join(ACCOUNT)) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """A browser in which the name evil.test points to this machine, as in DNS rebinding."""
    with chromium("--host-resolver-rules=MAP evil.test 127.0.0.1") as browser:
        yield browser


def log_in(browser, address):
    """Open a tab in a session of its own, and log in."""
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    user, password = ACCOUNT
    page.get_by_label("username").fill(user)
    page.get_by_label("password").fill(password)
    page.get_by_role("button", name="Login").click()
    page.get_by_role("button", name="Animate").wait_for()
    return page


def give_both(page, files, clip):
    give(page, "Source image", files / "source.png")
    give(page, "Driving clip", files / clip)


def ask(address, method, path, headers=None, body=None):
    """Send a request with the Host header of a browser; returns status, headers and text."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    connection.request(method, path, body, {"Host": place.netloc} | (headers or {}))
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, answer.headers, text


def test_nobody_without_the_password(address):
    for method, path in (
        ("GET", "/config"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/queue/join"),
    ):
        status, _, _ = ask(address, method, path, {"Content-Type": "application/json"}, "{}")
        assert status == 401, path
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    wrong = ask(address, "POST", "/login", form, "username=anna&password=a")
    right = ask(address, "POST", "/login", form, "username=anna&password=a%3Along+password")
    assert (wrong[0], right[0]) == (400, 200)


def test_a_closed_tab_ends_its_animation(browser, address, files, tmp_path):
    first, second = log_in(browser, address), log_in(browser, address)
    give_both(first, files, "long.mp4")
    give_both(second, files, "driving.mp4")
    press_animate(first)
    first.get_by_text(BEGUN).wait_for()
    first.wait_for_timeout(1000)
    shown = re.search(r"([\d.]+)(k?)/3k frames\s*\|\s*([\d.]+)s", first.inner_text("body"))
    done, thousands, seconds = shown.groups()
    remaining = float(seconds) * (LONG / (float(done) * (1000 if thousands else 1)) - 1)
    first.context.close()
    begun = time.monotonic()
    press_animate(second)
    assert download(second, tmp_path).name == "source--driving.mp4"
    assert time.monotonic() - begun < remaining / 2
    second.context.close()


def three_visitors(browser, address, files):
    """Pages of three visitors: the first one's animation runs, the second's waits, and the third
    has given the same files.
    """
    pages = [log_in(browser, address) for _ in range(3)]
    for page in pages:
        give_both(page, files, "long.mp4")
    press_animate(pages[0])
    pages[0].get_by_text(BEGUN).wait_for()
    press_animate(pages[1])
    pages[1].get_by_text("number 1 of 1 in the queue").wait_for()
    return pages


def test_a_full_queue(browser, address, files):
    """One animation runs, one waits, a third is refused until the waiting tab is closed."""
    pages = three_visitors(browser, address, files)
    press_animate(pages[2])
    assert message(pages[2], "Error") == (
        "The queue is full: 1 already waits. Try again in a few minutes."
    )
    pages[2].get_by_text("Queue: one animation is being made, 1 waits.").wait_for()
    pages[1].context.close()
    deadline = time.monotonic() + PATIENCE / 1000
    while not pages[2].get_by_role("button", name="Stop").is_visible():
        assert time.monotonic() < deadline
        press_animate(pages[2])
        pages[2].wait_for_timeout(500)
    pages[2].get_by_text("number 1 of 1 in the queue").wait_for()
    pages[0].context.close()
    pages[2].get_by_text(BEGUN).wait_for()
    pages[2].context.close()


def test_stop_while_waiting(browser, address, files):
    """The place in the queue is free at once."""
    pages = three_visitors(browser, address, files)
    pages[1].get_by_role("button", name="Stop").click()
    assert message(pages[1], "Stopped") == "There is no result."
    press_animate(pages[2])
    pages[2].get_by_text("number 1 of 1 in the queue").wait_for()
    assert pages[0].get_by_text(BEGUN).is_visible()  # it was still running
    for page in pages[::-1]:
        page.context.close()


def test_a_wrong_file_is_refused_before_the_waiting(browser, address, files):
    pages = [log_in(browser, address) for _ in range(2)]
    give_both(pages[0], files, "long.mp4")
    give(pages[1], "Source image", files / "source.png")
    give(pages[1], "Driving clip", files / "text.mp4")
    press_animate(pages[0])
    pages[0].get_by_text(BEGUN).wait_for()
    press_animate(pages[1])
    assert message(pages[1], "Error") == "text.mp4: not a video: the file holds text"
    assert pages[0].get_by_text(BEGUN).is_visible()
    for page in pages[::-1]:
        page.context.close()


def test_a_file_that_is_too_large(browser, address, files):
    page = log_in(browser, address)
    box(page, "Source image").locator("input[type=file]").set_input_files(files / "large.png")
    page.get_by_text('File(s) exceed the maximum allowed size of 1.0 Mb: "large.png"').wait_for()
    page.context.close()


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join", "/login"])
def test_requests_that_are_too_large(address, path):
    """They are refused before anything of them is read."""
    status, _, text = ask(address, "POST", path, {"Content-Length": str(3 * 2**20)})
    is_file = path.endswith("/upload")
    reason = "The file is too large: at most 1 MB." if is_file else "The request is too large."
    assert (status, text) == (413, reason)
    for length in ({}, {"Content-Length": "5"}):  # which the server would not look at
        chunks = {"Transfer-Encoding": "chunked"} | length
        status, _, text = ask(address, "POST", path, chunks, "0\r\n\r\n")
        assert (status, text) == (411, "The length of the request is missing.")


EVIL = """<!doctype html>
<form id="form" method="post" enctype="text/plain" target="shown"
 action="ADDRESSgradio_api/queue/join">
<input name='{"data": [], "fn_index": 2, "session_hash": "a", "trash": "' value='"}'>
</form>
<iframe name="shown"></iframe>
<iframe src="ADDRESS"></iframe>
<script>
const body = new FormData();
body.append("files", new Blob(["evil"]), "evil.png");
const send = (path, options) => fetch("ADDRESS" + path, options)
  .then(answer => answer.status || answer.type, () => "failed");
window.sent = Promise.all([
  send("gradio_api/upload", {method: "POST", mode: "no-cors", credentials: "include", body}),
  send("gradio_api/upload", {method: "POST", credentials: "include", body}),
  send("config", {credentials: "include"}),
]);
document.getElementById("form").submit();
</script>
"""


@pytest.fixture
def evil(tmp_path, address):
    """The address of another web site, whose page tries to use the served page."""
    (tmp_path / "index.html").write_text(EVIL.replace("ADDRESS", address))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{{}}:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "evil.test"])
def test_another_web_site_in_the_same_browser(browser, address, evil, name):
    """Even if somebody has logged in to the page, no request of the other site is answered."""
    page = log_in(browser, address)
    other = page.context.new_page()
    found = []
    other.on("response", lambda response: found.append((response.url, response.status)))
    other.goto(evil.format(name), wait_until="networkidle")
    first, *others = other.evaluate("window.sent")
    assert first == "opaque"  # it was sent, but the site cannot see the answer
    assert set(others) <= {403, "failed"}
    asked = [(urlsplit(url).path, status) for url, status in found if url.startswith(address)]
    assert {path for path, _ in asked} >= {"/gradio_api/upload", "/gradio_api/queue/join", "/"}
    assert {status for _, status in asked} == {403}
    page.context.close()


def test_a_name_that_was_made_to_point_here(browser, address):
    page = browser.new_page()
    answer = page.goto(f"http://evil.test:{urlsplit(address).port}/")
    assert answer.status == 403
    assert page.inner_text("body").startswith("This page is not known as 'evil.test'; if it should")
    answer = page.goto(f"http://localhost:{urlsplit(address).port}/")
    assert answer.status == 200
    assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
    page.close()


def test_a_page_without_a_password_causes_a_warning(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DEMO_AUTH", raising=False)
    assert call(demo, "--host", "0.0.0.0", "--checkpoint", tmp_path / "none.pt") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: --host 0.0.0.0 without a password: whoever reaches this")
    assert "none.pt: cannot be read" in second
    assert call(demo, "--auth", "anna", "--checkpoint", tmp_path / "none.pt") == 2
    assert "--auth: is not USER:PASSWORD" in error_line(capsys, "python -m web")
    assert call(demo, "--auth-file", tmp_path / "none") == 2
    assert "none: cannot be read: No such file" in error_line(capsys, "python -m web")


def test_what_visitors_send_does_not_control_the_terminal(capsys, monkeypatch, tmp_path):
    """Gradio and uvicorn print it in their tracebacks."""
    pytest.importorskip("gradio")

    def serve(*_):
        print("KeyError: \x1b[31m", file=sys.stderr)

    animator = SimpleNamespace(precision="float32", device="cpu")
    monkeypatch.setattr(demo.Animator, "load", lambda *_, **__: animator)
    monkeypatch.setattr(demo, "serve", serve)
    monkeypatch.setattr(os, "environ", {**os.environ})
    assert call(demo, "--checkpoint", tmp_path / "none.pt") == 0
    assert capsys.readouterr().err == "KeyError: \\x1b[31m\n"
