"""A page to animate images in the browser; it is served from here, and asks nothing of others."""

import argparse
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

import openmp  # noqa: F401

from animation.animator import Animator
from cli import (
    add_device_argument,
    add_max_pixels_argument,
    add_precision_argument,
    newest_checkpoint,
    positive_int,
    run_entry_point,
)
from errors import UserError
from metrics.detectors.packages import import_package

INSTALL = "pip install -r requirements-demo.txt"


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        # Read when Gradio is imported, and when it builds a page.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and results
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # it calls nobody but itself
        import_package("gradio", INSTALL)
        path = Path(arguments.checkpoint) if arguments.checkpoint else newest_checkpoint()
        animator = Animator.load(
            path,
            arguments.config,
            arguments.device,
            arguments.precision,
            max_pixels=arguments.max_pixels,
        )
        print(f"networks in {animator.precision} on {animator.device}")
        serve(animator, arguments.host, arguments.port, arguments.debug)


def serve(animator: Animator, host: str, port: int, debug: bool) -> None:
    """Until Ctrl-C or SIGTERM."""
    from web.page import SCRIPT, STYLE, Page

    page = Page(animator, debug)
    try:
        _, address, _ = page.blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            css_paths=STYLE,
            js=SCRIPT.read_text(),
        )
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--host {host} --port {port}: no page can be served there, mostly because the port is "
            "taken; choose another"
        ) from error
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    print(f"{address} (Ctrl-C ends it)", flush=True)
    ended.wait()
    page.close()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__)
    parser.add_argument("--checkpoint", metavar="PATH", help="default: the newest under runs/")
    parser.add_argument(
        "--config", metavar="FILE", help="of a published checkpoint, which has none in it"
    )
    parser.add_argument("--port", type=positive_int, default=7860, help="7860")
    parser.add_argument(
        "--host", default="127.0.0.1", help="127.0.0.1: this machine alone; 0.0.0.0: its network"
    )
    add_device_argument(parser)
    add_precision_argument(parser)
    add_max_pixels_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
