"""What stands behind the animated figure: a colour, a picture, or a clip in step with the driving.

A clip's frames are taken to be evenly spaced at its average frame rate.
"""

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import count, islice
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from datasets.images import Fit, fit_frames, open_image, read_image
from datasets.source import Frame
from datasets.video import CONTAINER_SUFFIXES, KINDS, open_clip
from errors import UserError

BackgroundEnd = Literal["loop", "hold", "stop"]

ANIMATED_FORMATS = ("GIF", "PNG", "WEBP")  # others with several pictures are not animations
COLOR = re.compile(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})")
ADVICE = f"give an image, a video ({KINDS}), a folder of frames, or a colour such as #00ff00"


class BackgroundFrames:
    """Frame i is what `frames`, at `background_rate`, show at the time of driving frame i.

    An iterable of uint8 H x W x 3 frames of `size` (height, width); both rates are in frames per
    second. Where `frames` end, `loop` starts them again, `hold` keeps the last one for ever and
    `stop` ends the iteration; None is for one picture, which stays. While the picture stays the
    same, so does the array. No more than one frame is kept in memory.

    Attributes:
        is_still: one picture, not a clip.
        original_size: (height, width) of the first frame before it was fitted.

    Raises:
        UserError: from the constructor, no frame can be read; later, one of a folder cannot.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        background_rate: Fraction,
        size: tuple[int, int],
        fit: Fit,
        frame_rate: Fraction,
        end: BackgroundEnd | None,
    ) -> None:
        self.is_still = end is None
        self._frames = frames
        self._frames_per_step = background_rate / frame_rate
        self._size = size
        self._fit: Fit = fit
        self._end = end
        height, width = next(self._successive()).shape[:2]
        self.original_size = (height, width)

    def __iter__(self) -> Iterator[Frame]:
        successive = self._successive()
        latest = next(successive)
        position, shown = 0, self._fitted(latest)
        for step in count():
            wanted = int(step * self._frames_per_step)
            before = latest
            for following in islice(successive, wanted - position):
                latest = following
                position += 1
            if position < wanted and self._end == "stop":
                return
            if latest is not before:
                shown = self._fitted(latest)
            yield shown

    def _successive(self) -> Iterator[Frame]:
        """The frames in order, as often as `end` says."""
        try:
            while True:
                is_empty = True
                for frame in self._frames:
                    is_empty = False
                    yield frame
                if is_empty:
                    raise ValueError("a background needs at least one frame")
                if self._end != "loop":
                    return
        except UserError as error:
            raise UserError(f"--background {error}; {ADVICE}") from None

    def _fitted(self, frame: Frame) -> Frame:
        return fit_frames(frame[None], self._size, self._fit)[0]


def open_background(
    text: str, size: tuple[int, int], fit: Fit, frame_rate: Fraction, end: BackgroundEnd
) -> BackgroundFrames:
    """The background that a user named: a colour (#00ff00), an image or a clip.

    A clip is a video, an animated GIF or a folder of frames, read as it is shown; a png is always
    a picture. `frame_rate` is that of the driving clip, `end` says what follows a clip's last
    frame that can be decoded.

    Raises:
        UserError: there is nothing of this name, or it cannot be read.
    """
    color = parse_color(text)
    if color is not None:
        return still_background(solid_frame(color, size), size, fit, frame_rate)
    try:
        if not _is_clip(Path(text)):
            return still_background(read_image(text), size, fit, frame_rate)
        clip = open_clip(text)
    except UserError as error:
        raise UserError(f"--background {error}; {ADVICE}") from None
    return BackgroundFrames(clip, clip.frame_rate, size, fit, frame_rate, end)


def parse_color(text: str) -> tuple[int, int, int] | None:
    """Red, green and blue in 0 .. 255 of `#00ff00` or `#0f0`; None without the `#`.

    Raises:
        UserError: a `#` with something else behind it.
    """
    if not text.startswith("#"):
        return None
    if not COLOR.fullmatch(text):
        raise UserError(
            f"--background {text}: not a colour; write #00ff00 or #0f0, or ./{text} for a file"
        )
    digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def solid_frame(color: tuple[int, int, int], size: tuple[int, int]) -> Frame:
    """H x W x 3 of one colour (red, green, blue in 0 .. 255)."""
    return np.full((*size, 3), color, np.uint8)


def still_background(
    image: Frame, size: tuple[int, int], fit: Fit, frame_rate: Fraction
) -> BackgroundFrames:
    """One picture, H x W x 3, behind every driving frame."""
    return BackgroundFrames([image], frame_rate, size, fit, frame_rate, None)


def _is_clip(path: Path) -> bool:
    """What the contents say; the suffix for what is no image."""
    if path.is_dir():
        return True
    is_video = path.suffix.lower() in CONTAINER_SUFFIXES
    try:
        with open_image(path) as image:
            form = image.format
            is_animated = form in ANIMATED_FORMATS and getattr(image, "is_animated", False)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return is_video  # its reader says what is wrong
    if is_animated and not is_video:
        raise UserError(f"{path}: an animation ({form}), which is read from .gif and videos only")
    return is_animated
