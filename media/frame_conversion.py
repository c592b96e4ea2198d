"""Converts a decoded video frame to RGB as a player shows it: upright, square pixels, 8 bits."""

import struct
from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import Interpolation

from media.frames import Frame
from media.hdr import hdr_kind, tone_map
from media.images import over_white

# swscale's quick default darkens every conversion by about 1.3 of 255; this one is unbiased.
ACCURATE = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

MAX_PIXEL_ASPECT = 4  # a larger ratio in a file, or one below a quarter, is a mistake
# Data sets are cut along nearly square boxes and scaled to square frames, and FFmpeg then states
# how far the box was from square. All published work ignores such a ratio.
MAX_SCALED_ASPECT = Fraction(1, 8)  # largest difference from 1 that is ignored


def pixel_aspect(stream: av.VideoStream) -> Fraction:
    """The width of a pixel over its height, as the file states it.

    It is 1 if the file states none, or a ratio near 1 for square frames.
    """
    aspect = stream.sample_aspect_ratio
    if not aspect or not Fraction(1, MAX_PIXEL_ASPECT) <= aspect <= MAX_PIXEL_ASPECT:
        return Fraction(1)
    if stream.width == stream.height and abs(aspect - 1) <= MAX_SCALED_ASPECT:
        return Fraction(1)
    return aspect


Orientation = tuple[int, ...]  # a display matrix: 3 x 3, row by row, in units of 1 / 65536


def orientation(frame: av.VideoFrame) -> Orientation | None:
    """The display matrix in the file's header or in a message of the stream; None if absent."""
    side_data = cast(SideDataContainer, frame.side_data)  # PyAV states another type
    messages = (side_data[number] for number in range(len(side_data)))
    found = [bytes(message) for message in messages if message.type is Type.DISPLAYMATRIX]
    return struct.unpack("=9i", found[0]) if found else None


class Look(NamedTuple):
    """How the first frame of a clip is shown; it holds for all its frames.

    The first frame decides because only key frames carry the message that turns the picture.

    Attributes:
        size: (height, width) of the picture as it is shown.
        matrix: the display matrix that turns it; None for none.
        remarks: see `remarks_on`.
    """

    size: tuple[int, int]
    matrix: Orientation | None
    remarks: tuple[str, ...]


def look_at(frame: av.VideoFrame, aspect: Fraction) -> Look:
    """Find how a frame is shown whose pixels are `aspect` times as wide as high."""
    matrix = orientation(frame)
    width, height = square_size(frame.width, frame.height, aspect)
    is_turned = matrix is not None and _swaps_sides(matrix)
    return Look((width, height) if is_turned else (height, width), matrix, remarks_on(frame))


def remarks_on(frame: av.VideoFrame) -> tuple[str, ...]:
    """Lines for the user on what is changed in a frame before it is shown."""
    remarks = []
    if frame.interlaced_frame:
        remarks.append("interlaced; made whole (bwdif)")
    kind = hdr_kind(frame)
    if kind is not None:
        remarks.append(f"{kind}, a high dynamic range; tone-mapped to the standard one (BT.709)")
    return tuple(remarks)


def frame_to_rgb(
    frame: av.VideoFrame, aspect: Fraction = Fraction(1), matrix: Orientation | None = None
) -> Frame:
    """Convert a decoded frame to uint8 RGB, H x W x 3, upright.

    Any depth is scaled to 8 bits, transparency is composited on white, and a high dynamic range is
    tone-mapped to the standard one (`hdr.py`). If pixels are `aspect` times as wide as high, one
    side is enlarged, so that pixels become square and none is lost.
    """
    width, height = square_size(frame.width, frame.height, aspect)
    image: Frame
    kind = hdr_kind(frame)
    if kind is not None:
        deep = frame.to_ndarray(
            format="rgb48le", width=width, height=height, interpolation=ACCURATE
        ).astype(np.uint16, copy=False)
        image = tone_map(deep, kind, frame.color_primaries)
        return image if matrix is None else _upright(image, matrix)
    has_alpha = any(component.is_alpha for component in frame.format.components)
    samples = frame.to_ndarray(
        format="rgba" if has_alpha else "rgb24", width=width, height=height, interpolation=ACCURATE
    )
    image = samples.astype(np.uint8, copy=False)
    image = over_white(image) if has_alpha else image
    return image if matrix is None else _upright(image, matrix)


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """(width, height) after a picture with pixels `aspect` times as wide as high is made square."""
    return round(width * max(aspect, Fraction(1))), round(height / min(aspect, Fraction(1)))


def _upright(image: Frame, matrix: Orientation) -> Frame:
    """Turn and mirror a picture as a display matrix says, by the nearest quarter turn.

    The rows of the matrix are (a, b, u), (c, d, v), (x, y, w): the pixel at (p, q), q pointing
    down, is shown at (a p + c q + x, b p + d q + y) (ISO/IEC 14496-12, 8.3.2).
    """
    a, b, _, c, d = matrix[:5]
    if _swaps_sides(matrix):
        image = image.swapaxes(0, 1)
        down, right = b, c
    else:
        right, down = a, d
    image = image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
    return np.ascontiguousarray(image)


def _swaps_sides(matrix: Orientation) -> bool:
    """Whether a display matrix turns by about a quarter, so that width and height swap."""
    a, b, _, c, d = matrix[:5]
    return abs(a) + abs(d) < abs(b) + abs(c)
