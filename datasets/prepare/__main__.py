"""Prepare clips for training: python -m datasets.prepare --input DIR --output DIR

Checks, crops, resizes and packs every clip of a folder: videos, folders of frames, strips, and
TFRecord files (BAIR). Packed clips are read many times as fast as videos. Train on them with
`data.root=OUTPUT`; list or unpack them with `python -m datasets.unpack`. If the input has train/
and test/, so has the output; otherwise --test-share splits the clips by identity, the part of a
name before the #.

Started again, it continues where it ended and adds clips with new names; clips whose names it has
are not read again. OUTPUT/report.csv lists the clips that were rejected, shortened or changed, and
why.
"""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import (
    add_max_pixels_argument,
    end_on_sigterm,
    positive_int,
    run_entry_point,
    say,
)
from common.errors import UserError
from common.limits import chosen_limits
from common.machine import num_cores
from common.safe_paths import printable, resolve
from datasets.prepare.candidates import Candidate, find_clips, in_splits
from datasets.prepare.convert import ConvertOptions
from datasets.prepare.folder import claimed, finished_clips, note_settings, prepare
from datasets.prepare.splits import assign_splits, note_drawn, read_drawn, shared_identities
from media.container import os_reason

_MIN_SIDE = 16

logger = logging.getLogger(__name__)


def main(arguments: argparse.Namespace) -> None:
    end_on_sigterm()
    source, output = Path(arguments.input), Path(arguments.output)
    metadata = None if arguments.metadata is None else Path(arguments.metadata)
    if resolve(output).is_relative_to(resolve(source)):
        raise UserError(f"--output {output}: lies in --input {source}; choose a folder outside")
    if arguments.max_frames is not None and arguments.max_frames < arguments.min_frames:
        raise UserError(
            f"--max-frames {arguments.max_frames}: below --min-frames {arguments.min_frames}; no "
            "clip would be left"
        )
    if metadata is not None and arguments.fit == "pad":
        raise UserError("--fit pad: boxes of --metadata are widened, not padded; leave --fit out")
    settings = ConvertOptions(
        format=arguments.format,
        image_size=arguments.image_size,
        fit=arguments.fit,
        quality=arguments.quality,
        frame_step=arguments.frame_step,
        min_frames=arguments.min_frames,
        max_frames=arguments.max_frames,
        min_size=arguments.min_size,
        limits=chosen_limits(arguments.max_pixels),
    )
    looks = {name: value for name, value in settings._asdict().items() if name != "limits"}
    every_choice = looks | {
        "image_size": "x".join(map(str, settings.image_size)),
        "input": str(resolve(source)),
        "metadata": metadata and str(resolve(metadata)),
        "test_share": arguments.test_share,
        "seed": arguments.seed,
    }
    try:
        with claimed(output, every_choice):
            listed = find_clips(source, metadata)
            finished = finished_clips(output)
            drawn = read_drawn(output) if finished else {}
            splits = assign_splits(listed, arguments.test_share, arguments.seed, finished, drawn)
            candidates = in_splits(listed, splits)
            note_settings(output, every_choice)
            note_drawn(output, drawn | splits)
            say(f"{source}: {len(candidates)} clips found")
            _warn_of_shared_identities(source, candidates)
            summary = prepare(candidates, settings, output, arguments.workers, arguments.debug)
    except MemoryError:
        raise UserError(
            f"{output}: not enough memory; start again with fewer --workers, and it continues"
        ) from None
    except OSError as error:  # a folder that must not be read, or a full disk
        raise UserError(f"{error.filename or output}: {os_reason(error)}") from error
    print(f"{printable(str(output))}: {summary.text()}")


def _warn_of_shared_identities(source: Path, candidates: Sequence[Candidate]) -> None:
    """Log a warning if an identity has clips in both splits."""
    shared = shared_identities({(clip.split, clip.name) for clip in candidates})
    if shared:
        logger.warning(
            "%s: %d identities are in train/ and in test/, the first is %s; test clips should show "
            "other identities than training clips",
            *(source, len(shared), shared[0]),
        )


def image_size(text: str) -> tuple[int, int]:
    """Parse `256` or `256x128` to (height, width), for argparse."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: write 256, or 256x128 (height x width)")
    height = int(match[1])
    width = int(match[2] or height)
    if min(height, width) < _MIN_SIDE:
        raise argparse.ArgumentTypeError(f"{text}: must be at least {_MIN_SIDE}")
    return height, width


def quality(text: str) -> int:
    """Parse a whole number from 1 to 100, for argparse."""
    number = int(text)
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text}: must be from 1 to 100")
    return number


def share(text: str) -> float:
    """Parse a number of at least 0 and below 1, for argparse."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0 and below 1")
    return number


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--input", required=True, metavar="DIR", help="folder of clips, or of the --metadata videos"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="new folder, or one to be continued"
    )
    parser.add_argument(
        "--metadata",
        metavar="PATH",
        help="list of parts of the videos, with crop boxes: a CSV table (vox-metadata.csv, "
        "taichi-metadata.csv), or a folder of txt files (VoxCeleb)",
    )
    parser.add_argument(
        "--image-size",
        type=image_size,
        default=(256, 256),
        help="256 (default), or 256x128: height x width",
    )
    parser.add_argument(
        "--fit",
        choices=("crop", "pad"),
        default="crop",
        help="what to do with frames of another aspect ratio (crop)",
    )
    parser.add_argument(
        "--format",
        choices=("packed", "frames"),
        default="packed",
        help="packed JPEG (default), or a folder of PNG files for each clip: lossless, slower to "
        "read, 5 times as large",
    )
    parser.add_argument("--quality", type=quality, default=95, help="JPEG quality, 1 to 100 (95)")
    parser.add_argument(
        "--frame-step", type=positive_int, default=1, metavar="N", help="keep every Nth frame (1)"
    )
    parser.add_argument(
        "--min-frames", type=positive_int, default=2, help="reject clips with fewer (2)"
    )
    parser.add_argument(
        "--max-frames", type=positive_int, help="cut longer clips off (default: no limit)"
    )
    parser.add_argument(
        "--min-size",
        type=positive_int,
        default=1,
        metavar="PIXELS",
        help="reject clips whose picture or box has a side shorter than this (1)",
    )
    add_max_pixels_argument(parser)
    parser.add_argument(
        "--test-share",
        type=share,
        default=0.05,
        help="share of identities for the test, if the input has no train/ and test/ (0.05)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of these (0)")
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=num_cores(),
        help="number of processes (default: one for each core)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
