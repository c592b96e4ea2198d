"""Reads and writes frame_rate.json, which states the frame rate of a folder of frames."""

import json
from fractions import Fraction
from pathlib import Path

from common.json_files import nearest_rate, parse_rate, read_json

RATE_FILE = "frame_rate.json"
_KEY = "frames_per_second"


def write_frame_rate(folder: Path, frame_rate: Fraction) -> None:
    """Write the frame rate of the frames in `folder`.

    It is exact unless `stated_frame_rate` does not read so many digits, or such a rate.
    """
    text = str(nearest_rate(frame_rate))
    (folder / RATE_FILE).write_text(json.dumps({_KEY: text}) + "\n")


def stated_frame_rate(folder: Path) -> Fraction | None:
    """Read the frames per second that `write_frame_rate` wrote; None if there is no such file.

    A file of the same name with other contents is ignored.
    """
    try:
        return parse_rate(read_json(folder / RATE_FILE)[_KEY])
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError):
        return None
