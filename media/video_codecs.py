"""The codecs of the videos that are written, and what they cannot encode."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.limits import MAX_FRAME_PIXELS

MANY_PIXELS = 2**23  # of a frame; 4K has fewer
MAX_TERM = 2**31 - 1  # numerator and denominator of a fraction in FFmpeg


class Ahead(NamedTuple):
    """An encoder's option of the frames that it keeps to look ahead, and its default."""

    option: str
    num_frames: int


class Codec(NamedTuple):
    name: str
    pixel_format: str
    options: dict[str, str]
    ahead: Ahead | None = None


CODECS = {
    ".mp4": Codec("libx264", "yuv420p", {"crf": "17"}, Ahead("rc-lookahead", 40)),
    ".webm": Codec(
        "libvpx-vp9",
        "yuv420p",
        {"crf": "24", "b:v": "0", "cpu-used": "4", "row-mt": "1"},
        Ahead("lag-in-frames", 25),
    ),
    # ProRes, for video editors.
    ".mov": Codec("prores_ks", "yuv422p10le", {"profile": "hq"}),
    # Not by imageio, which keeps all frames in memory to the end and makes one of those that are
    # equal.
    ".gif": Codec("gif", "pal8", {}),
}
TRANSPARENT_CODECS = {
    ".webm": CODECS[".webm"]._replace(pixel_format="yuva420p"),
    ".mov": Codec("prores_ks", "yuva444p10le", {"profile": "4444"}),
}


def options_for(codec: Codec, size: tuple[int, ...], path: Path) -> dict[str, str]:
    """Options of the encoder for frames of `size` (height, width).

    The larger they are, the fewer of them it keeps, so that it takes some 3 GB of memory at most.

    Raises:
        UserError: the frames are too large; names `path`.
    """
    num_pixels = size[0] * size[1]
    if codec.ahead is None:
        return codec.options
    if num_pixels > MAX_FRAME_PIXELS:
        raise UserError(
            f"{path}: frames of {size[1]} x {size[0]} pixels; this kind of video has at most "
            f"{MAX_FRAME_PIXELS:,} in all; write .mov, or a folder of png frames"
        )
    option, num_frames = codec.ahead
    fewer = num_frames * MANY_PIXELS // num_pixels
    return codec.options if fewer >= num_frames else {**codec.options, option: str(fewer)}


def codable(rate: Fraction, path: Path) -> Fraction:
    """Return `rate`, or the nearest rate that FFmpeg can represent as a fraction.

    Raises:
        UserError: there is none; names `path`.
    """
    if max(rate.as_integer_ratio()) > MAX_TERM:
        rate = rate.limit_denominator(10**6)
    if not 0 < rate <= MAX_TERM or rate.numerator > MAX_TERM:
        raise UserError(f"{path}: a video file cannot have the frame rate of these frames")
    return rate
