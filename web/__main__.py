"""Serve a web page to animate images in the browser. It makes no requests to other hosts."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import common.openmp  # noqa: F401

from animation.animator import Animator
from checkpoints.folder import default_checkpoint
from common.cli import (
    EscapedStream,
    add_device_argument,
    add_max_pixels_argument,
    add_precision_argument,
    port_number,
    positive_int,
    run_entry_point,
    say,
)
from common.errors import UserError
from common.page_requests import known_names
from metrics.detectors.packages import import_package
from web.access import AUTH_VARIABLE, Account, read_accounts, warnings

POLL_SECONDS = 0.2  # so often the page looks whether it should end
INSTALL = "pip install -e '.[web]'"


def main(arguments: argparse.Namespace) -> None:
    given = arguments.auth
    accounts = read_accounts(arguments.auth_file, given)
    for line in warnings(arguments.host, arguments.auth_file, accounts, given):
        say(line, sys.stderr)
    with (
        # Gradio and uvicorn print the tracebacks of wrong requests, with names that visitors chose.
        redirect_stdout(EscapedStream(sys.stdout)),
        redirect_stderr(EscapedStream(sys.stderr)),
        tempfile.TemporaryDirectory(prefix="demo-") as folder,
    ):
        # Gradio reads these variables when it is imported and when it builds a page.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and results
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # it calls only itself
        import_package("gradio", INSTALL)
        path = Path(arguments.checkpoint) if arguments.checkpoint else default_checkpoint()
        animator = Animator.load(
            path,
            arguments.config,
            arguments.device,
            arguments.precision,
            max_pixels=arguments.max_pixels,
        )
        print(f"networks in {animator.precision} on {animator.device}")
        serve(animator, arguments, accounts, Path(folder))


def serve(
    animator: Animator, arguments: argparse.Namespace, accounts: Sequence[Account], folder: Path
) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        accounts: who may use the page; empty: anybody.
        folder: folder of the uploads.
    """
    from starlette.middleware import Middleware

    from web.examples import draw_examples
    from web.guard import Guard
    from web.page import SCRIPT, STYLE, Limits, Page

    host, port = arguments.host, arguments.port
    max_bytes = arguments.max_upload * 2**20
    limits = Limits(
        arguments.max_frames, arguments.max_minutes * 60, arguments.max_waiting, max_bytes
    )
    drawn = folder / "examples"
    drawn.mkdir()
    examples = draw_examples(drawn, animator.size, animator.saved.config.data.puppets)
    page = Page(animator, arguments.debug, limits, examples)
    names = known_names(host, arguments.allowed_host)
    try:
        _, address, _ = page.blocks.launch(
            server_name=host,
            server_port=port,
            auth=[*accounts] or None,
            max_file_size=max_bytes,
            app_kwargs={
                "middleware": [
                    Middleware(Guard, names=names, max_bytes=max_bytes, folder=folder),
                ]
            },
            max_threads=page.max_threads,
            num_workers=0,  # Gradio's further servers would not be protected by Guard
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
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: the page cannot be served there, most likely because "
            "the port is taken; choose another"
        ) from error
    wait_for_signal(f"{address} (Ctrl-C ends it)")
    page.close()


def wait_for_signal(line: str) -> None:
    """Wait for Ctrl-C or SIGTERM; `line` is printed once they are waited for.

    Without a threading.Event: a wait without a limit may sleep on after a signal that another
    thread got, and a handler that sets the Event may wait for its lock for ever.
    """
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: received.append(number))
    print(line, flush=True)
    while not received:
        time.sleep(POLL_SECONDS)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m web", description=__doc__)
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="the model; default: the newest under runs/ or, without any, the one in assets/",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="config of a published checkpoint, which contains none"
    )
    parser.add_argument(
        "--port", type=partial(port_number, lowest=1), default=7860, help="default: 7860"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="127.0.0.1 (default): only this machine; 0.0.0.0: its network",
    )
    parser.add_argument(
        "--auth",
        metavar="USER:PASSWORD",
        help="who may use the page; default: the environment variable "
        f"{AUTH_VARIABLE}, if it is set, which unlike this option other users of the machine do "
        "not see",
    )
    parser.add_argument(
        "--auth-file",
        metavar="FILE",
        help="file with a line USER:PASSWORD for each person who may use the page",
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name under which the page is reached, as behind a proxy; may be repeated",
    )
    limits = parser.add_argument_group("limits for each user")
    limits.add_argument(
        "--max-upload", type=positive_int, default=200, metavar="MB", help="size of a file (200)"
    )
    limits.add_argument(
        "--max-frames", type=positive_int, default=3000, help="frames of the driving clip (3000)"
    )
    limits.add_argument(
        "--max-minutes", type=positive_int, default=30, help="time for an animation (30)"
    )
    limits.add_argument(
        "--max-waiting", type=positive_int, default=10, help="animations in the queue (10)"
    )
    add_device_argument(parser)
    add_precision_argument(parser)
    add_max_pixels_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
