"""Crop boxes: cutting a rectangle of a picture out at a given size, and pasting one back."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from media.frames import Frame

FEATHER = 0.08  # width of the fade at a pasted edge, as a part of the box's shorter side
ROUNDING = 1e-6  # differences of up to this many pixels, or parts of a side, are ignored


class Box(NamedTuple):
    """A rectangle in pixels of a picture; the whole picture is (0, 0, W, H).

    Parts of the box may lie outside of the picture.
    """

    left: float
    top: float
    width: float
    height: float


def parse_box(text: str, option: str) -> Box:
    """Parse the box `left,top,width,height` that a user gave with `option`.

    Raises:
        UserError: the text is not a box.
    """
    try:
        left, top, width, height = (float(number) for number in text.split(","))
        is_finite = math.isfinite(left + top + width + height)
    except ValueError:  # not a number, or not four
        is_finite = False
    if not is_finite:
        raise UserError(
            f"{option} {text}: not four numbers; write left,top,width,height in pixels, such as "
            "40,0,256,256"
        )
    if min(width, height) <= 0:
        raise UserError(f"{option} {text}: no area; give a width and a height above 0")
    return Box(left, top, width, height)


def require_overlap(box: Box, image_size: tuple[int, int], option: str) -> None:
    """Raise UserError if the box of `option` lies outside of a picture of (height, width)."""
    height, width = image_size
    if min(box.left + box.width, width) <= max(box.left, 0) or min(
        box.top + box.height, height
    ) <= max(box.top, 0):
        raise UserError(
            f"{option} {as_text(box)}: outside of the picture, which has {width} x {height} pixels"
        )


def as_text(box: Box) -> str:
    """Format a box as `parse_box` reads it, rounded to a tenth of a pixel."""
    return ",".join(f"{round(number, 1):g}" for number in box)


def centre_box(image_size: tuple[int, int], size: tuple[int, int]) -> Box:
    """Return the largest centred box of a picture with the aspect ratio of `size`.

    Both sizes are (height, width). `fit_frames` keeps this box when it crops.
    """
    height, width = image_size
    scale = min(width / size[1], height / size[0])
    box_width, box_height = size[1] * scale, size[0] * scale
    # At whole pixels, so that a crop without scaling copies pixels instead of interpolating them.
    return Box((width - box_width) // 2, (height - box_height) // 2, box_width, box_height)


def with_aspect(box: Box, size: tuple[int, int]) -> Box:
    """Enlarge the relatively shorter side of a box about its centre to the aspect ratio of `size`.

    size: (height, width).
    """
    scale = max(box.width / size[1], box.height / size[0])
    width, height = size[1] * scale, size[0] * scale
    left, top = box.left + (box.width - width) / 2, box.top + (box.height - height) / 2
    return Box(left, top, width, height)


def cut_out(frame: Frame, box: Box, size: tuple[int, int]) -> Frame:
    """Cut `box` out of `frame`, H x W x 3, and scale it to `size` (height, width), anti-aliased.

    Where the box reaches outside of the frame, the frame's edge is repeated. A network would take a
    black bar for an object with an outline, and might move it into the figure.

    Raises:
        ValueError: the aspect ratio of the box is not that of `size`.
        UserError: the frame fills less than one pixel of the result.
    """
    _require_aspect(box, size)
    scale = box.width / size[1]
    rows = _align(box.top, scale, frame.shape[0], size[0])
    columns = _align(box.left, scale, frame.shape[1], size[1])
    if rows.is_empty or columns.is_empty:
        raise UserError(
            f"the crop {as_text(box)} holds next to nothing of the picture, which has "
            f"{frame.shape[1]} x {frame.shape[0]} pixels; choose another"
        )
    inside = np.asarray(_resample(frame, rows, columns))
    beside = ((rows.first, size[0] - rows.last), (columns.first, size[1] - columns.last), (0, 0))
    return np.pad(inside, beside, mode="edge")


class Paster:
    """Pastes pictures into the rectangle `box` of `canvas`, H x W x 3.

    A picture fades in from the edges of the box over `feather` times its shorter side, except at
    edges on or outside of the canvas. Pixels outside of the box, and pixels that it covers only in
    part, do not change.
    """

    def __init__(self, canvas: Frame, box: Box, feather: float = FEATHER) -> None:
        self._canvas = Image.fromarray(canvas)
        self._box = box
        fade = feather * min(box.width, box.height)
        rows = _fade(box.top, box.height, canvas.shape[0], fade)
        columns = _fade(box.left, box.width, canvas.shape[1], fade)
        self._weights = np.empty(canvas.shape[:2], np.uint8)
        for weights, row in zip(self._weights, rows, strict=True):  # row by row, to save memory
            weights[:] = np.rint(255 * row * columns)

    def paste(self, picture: Frame) -> Frame:
        """Return the canvas, H x W x 3, with `picture`, h x w x 3, scaled into the box.

        Raises:
            ValueError: the aspect ratio of the box is not that of the picture.
        """
        height, width = picture.shape[:2]
        _require_aspect(self._box, (height, width))
        scale = width / self._box.width
        rows = _align(-self._box.top * scale, scale, height, self._canvas.height)
        columns = _align(-self._box.left * scale, scale, width, self._canvas.width)
        result = self._canvas.copy()
        if not (rows.is_empty or columns.is_empty):
            weights = self._weights[rows.first : rows.last, columns.first : columns.last]
            place = (columns.first, rows.first)
            result.paste(_resample(picture, rows, columns), place, Image.fromarray(weights))
        return np.array(result)


class _Span(NamedTuple):
    """Pixels first .. last - 1 of a target axis, which show start .. stop of the source axis."""

    first: int
    last: int
    start: float
    stop: float

    @property
    def is_empty(self) -> bool:
        return self.last <= self.first


def _align(origin: float, scale: float, num_source: int, num_target: int) -> _Span:
    """Find the whole pixels of a target axis that lie on the source axis.

    Position x of the target is position `origin + scale * x` of the source.
    """
    first = math.ceil(max(0, -origin / scale) - ROUNDING)
    last = math.floor(min(num_target, (num_source - origin) / scale) + ROUNDING)
    start, stop = max(0, origin + scale * first), min(num_source, origin + scale * last)
    return _Span(first, last, start, stop)


def _resample(frame: Frame, rows: _Span, columns: _Span) -> Image.Image:
    return Image.fromarray(frame).resize(
        (columns.last - columns.first, rows.last - rows.first),
        Image.Resampling.LANCZOS,
        box=(columns.start, rows.start, columns.stop, rows.stop),
    )


def _fade(start: float, side: float, num_pixels: int, fade: float) -> NDArray[np.float64]:
    """Weights of the pixels of one axis, N in [0, 1]: 0 outside of the box, rising over `fade`."""
    centres = np.arange(num_pixels) + 0.5
    before, after = centres - start, start + side - centres
    ramps = [
        inside / fade if has_edge and fade > 0 else inside > 0
        for inside, has_edge in (
            (before, start > ROUNDING),
            (after, start + side < num_pixels - ROUNDING),
        )
    ]
    ramp = np.clip(np.minimum(*ramps), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _require_aspect(box: Box, size: tuple[int, int]) -> None:
    if not math.isclose(box.width * size[0], box.height * size[1], rel_tol=ROUNDING):
        raise ValueError(
            f"a box of {box.width:g} x {box.height:g} pixels would be squashed to "
            f"{size[1]} x {size[0]}: use with_aspect"
        )
