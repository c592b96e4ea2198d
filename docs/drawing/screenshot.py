"""Take a screenshot of the page of `python -m web` with a result on it.

    pip install -e '.[web]' playwright
    python -m docs.drawing.screenshot --checkpoint runs/demo/checkpoints/best.pt

The checkpoint must have all branches. Source, driving clip and background are examples of the page.
Needs Chromium.
"""

import argparse
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from common.cli import positive_int, run_entry_point
from common.errors import UserError
from common.files import check_output_file, replacing
from metrics.detectors.packages import import_package

# By the label of the examples and that of the box: the number of the one to click on.
EXAMPLES = {
    ("Example images", "Source image"): 1,
    ("Example clips", "Driving clip"): 0,
    ("Example backgrounds", "Image"): 1,
}
VIDEOS = ".picture video[src]"  # of the driving clip and the result
MOMENT = 0.4  # seconds; the time of the frame that the videos show


def main(arguments: argparse.Namespace) -> None:
    check_output_file(Path(arguments.output), "page.png")
    playwright = import_package("playwright.sync_api", "pip install playwright")
    browser_path = arguments.chromium or shutil.which("chromium")
    if browser_path is None:
        raise UserError("there is no chromium here; give --chromium PATH")
    command = [sys.executable, "-m", "web", "--checkpoint", arguments.checkpoint]
    command += ["--port", str(arguments.port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = next((line.split()[0] for line in server.stdout if line.startswith("http")), None)
        if address is None:
            raise UserError("python -m web has ended; its message stands above")
        with playwright.sync_playwright() as running:
            browser = running.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": arguments.width, "height": 600})
            page.goto(address)
            animate(page)
            with replacing(Path(arguments.output)) as temporary:
                page.screenshot(path=temporary, full_page=True)
            browser.close()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def animate(page: Any) -> None:
    """Use the page as a user does: choose options and examples, animate, wait for the result."""
    page.get_by_role("button", name="Options").click()
    page.get_by_label("auto", exact=True).first.check()  # first of these: the reference frame
    page.get_by_role("button", name="Options").click()
    for (label, box_label), number in EXAMPLES.items():
        gallery = page.locator(".examples", has=page.get_by_text(label, exact=True))
        gallery.locator("button.gallery-item").nth(number).click()
        box = page.locator(".picture", has=page.get_by_text(box_label, exact=True))
        box.get_by_role("button", name="Clear").or_(
            box.get_by_role("button", name="Remove Image")
        ).wait_for()
    page.get_by_role("button", name="Animate").click()
    page.get_by_role("button", name="Download").wait_for()
    page.get_by_role("button", name="Animate").wait_for()
    page.wait_for_function("videos => document.querySelectorAll(videos).length == 2", arg=VIDEOS)
    page.evaluate(
        """([videos, seconds]) => Promise.all([...document.querySelectorAll(videos)].map(video => {
            video.pause();
            const shown = new Promise(done => video.addEventListener('seeked', done));
            video.currentTime = seconds;
            return shown;
        }))""",
        [VIDEOS, MOMENT],
    )
    page.mouse.move(0, 0)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m docs.drawing.screenshot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument("--chromium", metavar="PATH", help="default: the one on the PATH")
    parser.add_argument("--port", type=positive_int, default=7860)
    parser.add_argument(
        "--width", type=positive_int, default=1200, help="width of the window in pixels"
    )
    parser.add_argument(
        "--output", metavar="PNG", default=str(Path(__file__).parents[1] / "figures/demo-page.png")
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
