"""Take a screenshot of the page of `python -m web` with a result on it.

    pip install -e '.[web]' playwright
    python -m docs.drawing.screenshot --checkpoint runs/demo/checkpoints/best.pt

The checkpoint must have all branches. As in animate.py without files, the first test clip of its
data drives the first frame of the second, on the background of the third. Needs Chromium.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from checkpoints import checkpoint
from common.cli import positive_int, run_entry_point
from common.errors import UserError
from common.files import replacing
from datasets.build import build_source
from media.images import write_image
from media.video_writer import VideoWriter
from metrics.detectors.packages import import_package

MOMENT = 0.4  # seconds; the time of the frame that the videos show


def main(arguments: argparse.Namespace) -> None:
    playwright = import_package("playwright.sync_api", "pip install playwright")
    browser_path = arguments.chromium or shutil.which("chromium")
    if browser_path is None:
        raise UserError("there is no chromium here; give --chromium PATH")
    command = [sys.executable, "-m", "web", "--checkpoint", arguments.checkpoint]
    command += ["--port", str(arguments.port)]
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(arguments.checkpoint), Path(folder))
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            if not line:
                raise UserError("python -m web has ended; its message stands above")
            with playwright.sync_playwright() as running:
                browser = running.chromium.launch(
                    executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
                )
                page = browser.new_page(viewport={"width": arguments.width, "height": 600})
                page.goto(line.split()[0])
                animate(page, files)
                with replacing(Path(arguments.output)) as temporary:
                    page.screenshot(path=temporary, full_page=True)
                browser.close()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def write_files(path: Path, folder: Path) -> dict[str, Path]:
    """Write the files to upload; returns them by the labels of their boxes on the page."""
    clips = build_source(checkpoint.load(path).config.data, "test")
    files = {
        "Source image": folder / "source.png",
        "Driving clip": folder / "driving.mp4",
        "Image": folder / "third.png",
    }
    for label, index in (("Source image", 1), ("Image", 2)):
        write_image(files[label], clips.read(index, [0])[0])
    with VideoWriter(files["Driving clip"], clips.frame_rate(0)) as video:
        for frame in clips.stream(0):
            video.write(frame)
    return files


def animate(page: Any, files: dict[str, Path]) -> None:
    """Use the page as a user does: choose options, upload `files`, animate, wait for the result."""
    page.get_by_role("button", name="Options").click()
    page.get_by_label("auto", exact=True).first.check()  # first of these: the reference frame
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Background", exact=True).click()
    page.get_by_role("option", name="an image").click()
    for label, path in files.items():
        box = page.locator(".picture", has=page.get_by_text(label, exact=True))
        box.locator("input[type=file]").set_input_files(path)
        box.get_by_role("button", name="Clear").or_(
            box.get_by_role("button", name="Remove Image")
        ).wait_for()
    page.get_by_role("button", name="Animate").click()
    page.get_by_role("button", name="Download").wait_for()
    page.get_by_role("button", name="Animate").wait_for()
    page.wait_for_function("document.querySelectorAll('video[src]').length == 2")
    page.evaluate(
        """seconds => Promise.all([...document.querySelectorAll('video[src]')].map(video => {
            video.pause();
            const shown = new Promise(done => video.addEventListener('seeked', done));
            video.currentTime = seconds;
            return shown;
        }))""",
        MOMENT,
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
