"""How large a picture, a frame and a clip may be: the one place that says so.

A file of a hundred bytes can state a picture that takes gigabytes. So sizes are checked where the
header states them, before a pixel is decoded.
"""

from pathlib import Path
from typing import Final, NamedTuple

from common.errors import UserError

# Phones take 108 million pixels. Reading a picture takes 7 bytes for each: 0.9 GB at this limit.
MAX_PICTURE_PIXELS: Final = 2**27
# 8K, 7680 x 4320, fits. A decoder may keep 16 frames beside the current one: 0.9 GB at this limit.
MAX_FRAME_PIXELS: Final = 2**25
MAX_FRAMES: Final = 2**22  # of a clip: 46 hours of 25 frames a second; their times take 0.6 GB
# Of a picture's file: RGBA with 16 bits that is not compressed.
MAX_BYTES_PER_PIXEL: Final = 8
OPTION: Final = "--max-pixels"
REMEDY: Final = (
    f"if you trust the file, raise the limit with {OPTION}, or for training with data.max_pixels"
)


class Limits(NamedTuple):
    """picture: pixels of a still image, and of a frame that is a file of its own. frame: pixels of
    a frame of a video.
    """

    picture: int = MAX_PICTURE_PIXELS
    frame: int = MAX_FRAME_PIXELS


LIMITS: Final = Limits()


def chosen_limits(max_pixels: int | None) -> Limits:
    """Those of a user who gave OPTION, or the key data.max_pixels; the default ones for None."""
    return LIMITS if max_pixels is None else Limits(max_pixels, max_pixels)


def check_pixels(path: Path, width: int, height: int, limit: int, what: str) -> None:
    """Raise UserError where `what` of `path` has more than `limit` pixels."""
    if width * height > limit:
        raise UserError(
            f"{path}: {what} of {width} x {height} pixels, {too_many(width * height, limit)}"
        )


def too_many(number: int, limit: int) -> str:
    """That `number` is above the limit, and what to do."""
    return f"{number:,} in all, and at most {limit:,} are read; {REMEDY}"


def check_bytes(path: Path, limit: int) -> None:
    """Raise UserError where a picture's file is larger than any of `limit` pixels needs to be.

    Raises:
        OSError: there is no such file.
    """
    num_bytes, most = path.stat().st_size, limit * MAX_BYTES_PER_PIXEL
    if num_bytes > most:
        raise UserError(f"{path}: a picture of {num_bytes:,} bytes, {too_many(num_bytes, most)}")
