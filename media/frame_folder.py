"""The note in a folder of frames that says how fast to play them."""

import json
from fractions import Fraction
from pathlib import Path

from common.json_files import RATE_DIGITS, parse_rate, read_json

RATE_FILE = "frame_rate.json"
_KEY = "frames_per_second"


def write_frame_rate(folder: Path, frame_rate: Fraction) -> None:
    """Note the frame rate of the frames in `folder`, exact but for more digits than are read."""
    if len(str(frame_rate)) > RATE_DIGITS:
        frame_rate = frame_rate.limit_denominator(10**9)
    (folder / RATE_FILE).write_text(json.dumps({_KEY: str(frame_rate)}) + "\n")


def stated_frame_rate(folder: Path) -> Fraction | None:
    """Frames per second as `write_frame_rate` noted them; None for a folder without such a note.

    A file of the same name and other contents is somebody else's, not a note.
    """
    try:
        return parse_rate(read_json(folder / RATE_FILE)[_KEY])
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError):
        return None
