"""What stands behind the animated figure: a colour, a picture, or a clip in step with the driving
one.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from common.errors import UserError
from common.limits import LIMITS, Limits
from media.container import DEFAULT_FRAME_RATE
from media.frames import Frame, HasRemarks
from media.images import Fit, fit_frames, open_image, read_image
from media.timing import Clock
from media.video import CONTAINER_SUFFIXES, KINDS, open_clip

BackgroundEnd = Literal["loop", "hold", "stop"]

ANIMATED_FORMATS = ("GIF", "PNG", "WEBP")  # others with several pictures are not animations
COLOR = re.compile(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})")
ADVICE = f"give an image, a video ({KINDS}), a folder of frames, or a colour such as #00ff00"


class _Shown(NamedTuple):
    """A frame and when it ends, in seconds."""

    frame: Frame
    end: Fraction


class BackgroundFrames:
    """Frame i is the one of `frames` that is on the screen when driving frame i begins.

    An iterable of uint8 H x W x 3 frames of `size` (height, width). Where `frames` end, `loop`
    starts them again, `hold` keeps the last one for ever and `stop` ends the iteration; None is for
    one picture, which stays. While the picture stays the same, so does the array. No more than one
    frame is kept in memory.

    Args:
        clock, driving_clock: when `frames` and the driving frames are shown.

    Attributes:
        is_still: one picture, not a clip.
        original_size: (height, width) of the first frame before it was fitted.

    Raises:
        UserError: from the constructor, no frame can be read; later, one of a folder cannot.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        clock: Clock,
        size: tuple[int, int],
        fit: Fit,
        driving_clock: Clock,
        end: BackgroundEnd | None,
    ) -> None:
        self.is_still = end is None
        self._frames = frames
        self._clock = clock
        self._driving_clock = driving_clock
        self._size = size
        self._fit: Fit = fit
        self._end = end
        height, width = next(self._successive()).frame.shape[:2]
        self.original_size = (height, width)

    def __iter__(self) -> Iterator[Frame]:
        now = Fraction(0)
        successive = self._successive(lambda: now)
        latest: _Shown | None = next(successive)
        assert latest is not None
        current = latest.frame
        shown = self._fitted(current)
        for step in count():
            before, now = current, self._driving_clock.begin(step)
            while latest is not None and latest.end <= now:
                latest = next(successive, None)
                if latest is not None:
                    current = latest.frame
                elif self._end == "stop":
                    return
            if current is not before:
                shown = self._fitted(current)
            yield shown

    @property
    def remarks(self) -> Sequence[str]:
        """See `HasRemarks`."""
        return self._frames.remarks if isinstance(self._frames, HasRemarks) else ()

    def _successive(self, moment: Callable[[], Fraction] = Fraction) -> Iterator[_Shown]:
        """The frames in order, as often as `end` says; but for passes that would be over before
        `moment`, now: a clip may be a thousand times shorter than a driving frame.
        """
        elapsed = Fraction(0)  # until this pass began
        try:
            while True:
                num_frames = 0
                for frame in self._frames:
                    num_frames += 1
                    yield _Shown(frame, elapsed + self._clock.begin(num_frames))
                if num_frames == 0:
                    raise ValueError("a background needs at least one frame")
                if self._end != "loop":
                    return
                length = self._clock.begin(num_frames)
                elapsed += length * max((moment() - elapsed) // length, 1)
        except UserError as error:
            raise UserError(f"--background {error}; {ADVICE}") from None

    def _fitted(self, frame: Frame) -> Frame:
        return fit_frames(frame[None], self._size, self._fit)[0]


def open_background(
    text: str,
    size: tuple[int, int],
    fit: Fit,
    driving_clock: Clock,
    end: BackgroundEnd,
    limits: Limits = LIMITS,
) -> BackgroundFrames:
    """The background that a user named: a colour (#00ff00), an image or a clip.

    A clip is a video, an animated GIF or a folder of frames, read as it is shown; a png is always
    a picture. `driving_clock` is that of the driving clip, `end` says what follows a clip's last
    frame that can be decoded.

    Raises:
        UserError: there is nothing of this name, or it cannot be read, or is larger than `limits`
            allow.
    """
    color = parse_color(text)
    if color is not None:
        return still_background(solid_frame(color, size), size, fit)
    try:
        if not _is_clip(Path(text), limits):
            return still_background(read_image(text, limits), size, fit)
        clip = open_clip(text, limits=limits)
        clock = Clock(clip.frame_rate, clip.uneven_times)
    except UserError as error:
        raise UserError(f"--background {error}; {ADVICE}") from None
    return BackgroundFrames(clip, clock, size, fit, driving_clock, end)


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


def still_background(image: Frame, size: tuple[int, int], fit: Fit) -> BackgroundFrames:
    """One picture, H x W x 3, behind every driving frame."""
    clock = Clock(DEFAULT_FRAME_RATE)  # of no matter: it never ends
    return BackgroundFrames([image], clock, size, fit, clock, None)


def _is_clip(path: Path, limits: Limits) -> bool:
    """What the contents say; the suffix for what is no image."""
    if path.is_dir():
        return True
    is_video = path.suffix.lower() in CONTAINER_SUFFIXES
    try:
        with open_image(path, limits) as image:
            form = image.format
            is_animated = form in ANIMATED_FORMATS and getattr(image, "is_animated", False)
    except Exception:  # what is no picture breaks Pillow in any number of ways
        return is_video  # its reader says what is wrong
    if is_animated and not is_video:
        raise UserError(f"{path}: an animation ({form}), which is read from .gif and videos only")
    return is_animated
