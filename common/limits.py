"""Limits on the size of pictures, frames and clips, and the checks that enforce them.

The header of a file of a hundred bytes can state a picture that takes gigabytes. So the stated size
is checked before any pixel is decoded.
"""

from pathlib import Path
from typing import Final, NamedTuple

from common.errors import UserError

# Phones take pictures of 108 million pixels. Most take 7 bytes a pixel to read: 0.9 GB.
MAX_PICTURE_PIXELS: Final = 2**27
# 8K, 7680 x 4320, fits. A decoder may keep 16 frames beside the current one: 0.9 GB at this limit.
MAX_FRAME_PIXELS: Final = 2**25
MAX_FRAMES: Final = 2**22  # of a clip: 46 hours at 25 frames a second; their times take 0.6 GB
# The largest honest file of a picture is uncompressed RGBA of 16 bits a channel.
MAX_BYTES_PER_PIXEL: Final = 8
OPTION: Final = "--max-pixels"
REMEDY: Final = (
    f"if you trust the file, raise the limit with {OPTION}, or for training with data.max_pixels"
)


class Limits(NamedTuple):
    """The largest numbers of pixels that are read.

    picture: of a still image, and of a frame that is an image file. frame: of a frame of a video.
    """

    picture: int = MAX_PICTURE_PIXELS
    frame: int = MAX_FRAME_PIXELS


LIMITS: Final = Limits()


def chosen_limits(max_pixels: int | None) -> Limits:
    """Return the limits for the user's --max-pixels or data.max_pixels; the defaults for None."""
    return LIMITS if max_pixels is None else Limits(max_pixels, max_pixels)


def check_pixels(path: Path, width: int, height: int, limit: int, what: str) -> None:
    """Raise UserError where `what` of `path` has more than `limit` pixels."""
    if width * height > limit:
        raise UserError(
            f"{path}: {what} of {width} x {height} pixels, {too_many(width * height, limit)}"
        )


def too_many(number: int, limit: int) -> str:
    """Say for a message that `number` is above the limit, and what to do."""
    return f"{number:,} in all; at most {limit:,} are read; {REMEDY}"


def check_bytes(path: Path, num_bytes: int, limit: int) -> None:
    """Raise UserError where the file of a picture is larger than `limit` pixels could need."""
    most = limit * MAX_BYTES_PER_PIXEL
    if num_bytes > most:
        raise UserError(f"{path}: a picture of {num_bytes:,} bytes, {too_many(num_bytes, most)}")
