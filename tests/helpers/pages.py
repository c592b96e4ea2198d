"""The page of `python -m web`: served by a process, shown in a browser, used as people do."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.runs import command, environment, finish

PATIENCE = 30_000  # milliseconds


@contextmanager
def served(folder: Path, checkpoint: Path, *options: object, **variables: str) -> Iterator[str]:
    """The address of a page that is served meanwhile; in the end nothing of it may be left.

    Args:
        folder: for its temporary files.
        variables: of its environment.
    """
    pytest.importorskip("gradio")
    arguments = ("--checkpoint", checkpoint, "--port", free_port(), *options)
    process = subprocess.Popen(
        command("web", arguments),
        env=environment() | {"TMPDIR": str(folder)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        # How the networks compute depends on the machine.
        assert re.match(r"networks in (bf16|float32) .* on cpu$", lines[0]), lines
        assert lines[1].startswith("http://127.0.0.1:"), lines
        yield lines[1].split()[0]
    finally:
        process.terminate()
        ended = finish(process)
    assert ended == (0, "", "")
    assert list(folder.iterdir()) == []


@contextmanager
def chromium(*options: str) -> Iterator[Any]:
    """A browser; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium here")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *options]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def box(page: Any, label: str) -> Any:
    """The box with this label, where a picture is dropped or shown."""
    return page.locator(".picture", has=page.get_by_text(label, exact=True))


def give(page: Any, label: str, path: Path) -> None:
    """Upload a file, in the place of an earlier one."""
    clear = box(page, label).get_by_role("button", name=re.compile("Clear|Remove"))
    if clear.count():
        clear.click()
    with page.expect_response(re.compile("/upload")):
        box(page, label).locator("input[type=file]").set_input_files(path)
    clear.wait_for()


def press_animate(page: Any) -> None:
    page.get_by_role("button", name="Animate").click()


def message(page: Any, label: str) -> str:
    """The text in the box of this name, as soon as it is there."""
    text = page.get_by_label(label, exact=True).input_value()
    assert isinstance(text, str)
    return text


def download(page: Any, folder: Path) -> Path:
    """The result, as soon as it is there."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    path = folder / str(waiting.value.suggested_filename)
    waiting.value.save_as(path)
    return path
