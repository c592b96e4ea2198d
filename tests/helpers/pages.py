"""The page of `python -m web`: a server process, a browser, and functions that use the page."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import free_port
from tests.helpers.runs import command, environment, finish

PATIENCE = 30_000  # milliseconds


@contextmanager
def served(folder: Path, checkpoint: Path, *options: object, **variables: str) -> Iterator[str]:
    """Context manager: serves the page and yields its address; checks that no file is left at the
    end.

    Args:
        folder: folder for the temporary files of the server.
        variables: environment variables of the server.
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
        # The precision of the networks depends on the machine.
        assert re.match(r"networks in (bf16|float32) .* on cpu$", lines[0]), lines
        assert lines[1].startswith("http://127.0.0.1:"), lines
        yield lines[1].split()[0]
    finally:
        process.terminate()
        ended = finish(process)
    # LiteRT says so where a detector of people is installed.
    stderr = [line for line in ended.stderr.splitlines() if not line.startswith("INFO: Created Te")]
    assert (ended.code, ended.stdout, stderr) == (0, "", [])
    # An empty folder of torch may stay, which importing some packages makes.
    assert [path for path in folder.rglob("*") if "torchinductor" not in path.name] == []


@contextmanager
def chromium(*options: str) -> Iterator[Any]:
    """A browser; skips the test if there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium here")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *options]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def box(page: Any, label: str) -> Any:
    """The box with this label, to which a file is dropped, or in which a result is shown."""
    return page.locator(".picture", has=page.get_by_text(label, exact=True))


def give(page: Any, label: str, path: Path) -> None:
    """Upload a file to a box, and replace an earlier one."""
    clear = box(page, label).get_by_role("button", name=re.compile("Clear|Remove"))
    if clear.count():
        clear.click()
    with page.expect_response(re.compile("/upload")):
        box(page, label).locator("input[type=file]").set_input_files(path)
    clear.wait_for()


def press_animate(page: Any) -> None:
    page.get_by_role("button", name="Animate").click()


def message(page: Any, label: str) -> str:
    """Wait for the text in the box of this name."""
    text = page.get_by_label(label, exact=True).input_value()
    assert isinstance(text, str)
    return text


def wait_for_message(page: Any, label: str, text: str) -> None:
    """Wait until the box of this name, which may show an earlier message, has this text."""
    shown = page.get_by_label(label, exact=True)
    pytest.importorskip("playwright.sync_api").expect(shown).to_have_value(text, timeout=PATIENCE)


def download(page: Any, folder: Path, button: str = "Download") -> Path:
    """Wait for the result and download it."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button, exact=True).click()
    path = folder / str(waiting.value.suggested_filename)
    waiting.value.save_as(path)
    return path
