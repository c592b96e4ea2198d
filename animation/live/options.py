"""Options of animate.py for a camera: reads them, and refuses what does not go with one."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

from animation.inputs import is_transparent
from animation.jobs import Job, check_outputs
from animation.live.session import LiveOptions
from animation.mask_sources import is_name
from animation.options import read_settings
from animation.settings import Settings, as_typed
from common.cli import port_number
from common.errors import UserError
from common.safe_paths import is_folder
from media.camera import PREFIX

DEFAULT_PORT: Final = 7861

# Options that do not go with a camera, and why.
_REFUSED: Final = {
    "pairs": "names its clips itself",
    "allow_outside": "is for --pairs",
    "format": "is for many animations",
    "skip_existing": "is for many animations",
    "start": "is for clips, whose times are known",
    "end": "is for clips, whose times are known; Ctrl-C ends a camera",
    "save_masks": "writes a second clip; --show-masks shows them beside the picture",
    "detector": "measures clips",
    "compile": "compiles for many frames at a time, and a camera's come one by one",
}
_BATCH_SIZE: Final = 8  # default of --batch-size


def add_live_options(parser: argparse.ArgumentParser) -> None:
    live = parser.add_argument_group("a camera: --driving camera:0")
    live.add_argument(
        "--port",
        type=port_number,
        metavar="N",
        help=f"port of the page that shows the animation ({DEFAULT_PORT}); 0: any that is free",
    )


def read_live_options(arguments: argparse.Namespace) -> LiveOptions:
    """The options of an animation by the camera `--driving`.

    Raises:
        UserError: an option does not go with a camera; says why.
    """
    for option, reason in _REFUSED.items():
        if getattr(arguments, option) not in (None, False):
            raise UserError(
                f"{as_typed(option)} {reason}: it does not go with a camera; leave it out"
            )
    if arguments.audio not in ("copy", "none"):
        raise UserError(f"--audio {arguments.audio}: a camera's animation is silent; leave it out")
    if arguments.batch_size != _BATCH_SIZE:
        raise UserError("--batch-size: a camera's frames are animated one by one; leave it out")
    if arguments.source is None:
        raise UserError("--source is missing: the image that the camera animates")
    if is_folder(Path(arguments.source)):
        raise UserError(f"--source {arguments.source}: a folder; a camera animates one image")
    if is_transparent(arguments.background):
        raise UserError(
            "--background transparent: the page shows JPEG pictures, which have no transparency; "
            "give a colour, such as '#00ff00'"
        )
    if arguments.masks is not None and not is_name(arguments.masks):
        raise UserError(
            f"--masks {arguments.masks}: a camera's frames have no masks yet; use --masks person"
        )
    sources = (arguments.source, *(arguments.more_sources or ()))
    output = None if arguments.output is None else Path(arguments.output)
    if output is not None:
        clip = arguments.driving.removeprefix(PREFIX)
        job = Job(arguments.source, clip, arguments.background, output, sources[1:])
        check_outputs(
            [job],
            "none",
            save_masks=False,
            masks=arguments.masks,
            background_masks=arguments.background_masks,
        )
    return LiveOptions(
        arguments.driving,
        sources,
        arguments.background,
        _checked(read_settings(arguments)),
        arguments.layout,
        arguments.show_masks,
        output,
        DEFAULT_PORT if arguments.port is None else arguments.port,
    )


def _checked(settings: Settings) -> Settings:
    """The settings, for one frame at a time; UserError if they read the driving frames twice."""
    if settings.reference_frame != "first":
        raise UserError(
            f"--reference-frame {settings.reference_frame}: the pictures of a camera come once; "
            "leave it out, and set the reference on the page"
        )
    if settings.crop_driving == "auto":
        raise UserError(
            "--crop auto looks for the figure in the whole clip, and a camera's is not over; use "
            "--crop-source auto, and for --crop-driving none or a rectangle"
        )
    return replace(settings, batch_size=1)
