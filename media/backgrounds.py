"""Opens the background of an animation: a colour, a picture or a clip."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from PIL import ImageColor

from common.errors import UserError
from common.limits import LIMITS, Limits
from common.safe_paths import is_folder
from media.container import DEFAULT_FRAME_RATE
from media.frames import Frame, HasRemarks
from media.images import Fit, fit_frames, read_image
from media.timing import Clock
from media.video import CONTAINER_SUFFIXES, KINDS, VideoReader, open_clip
from media.watched import Refused, picture_facts

BackgroundEnd = Literal["loop", "hold", "stop"]

ANIMATED_FORMATS = ("GIF", "PNG", "WEBP")  # in others several pictures are no animation
# Frames a second of a clip that is shown again and again: for each driving frame, all of those
# since the last one are decoded, and a file of some kilobytes may have 90,000 a second.
MAX_LOOPED_RATE = 1000
COLOR = re.compile(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})")
ADVICE = (
    f"give an image, a video ({KINDS}), a folder of frames, or a colour such as #00ff00 or green"
)


class _Shown(NamedTuple):
    """A frame, and the time at which it ends, in seconds."""

    frame: Frame
    end: Fraction


class BackgroundFrames:
    """Iterates over the background of each driving frame, as uint8 H x W x 3 of one size.

    Item i is the frame of `frames` that a player would show when driving frame i begins. While the
    picture stays the same, the same array is returned. One frame at a time is kept in memory.

    Args:
        frames: frames of any size, uint8 H x W x 3.
        clock, driving_clock: the times of `frames` and of the driving frames.
        size: (height, width) of the result.
        end: what follows the last of `frames`: `loop` starts again, `hold` repeats the last one for
            ever, `stop` ends the iteration. None for a single picture, which stays.
        option: the option that named the frames, for error messages.

    Attributes:
        is_still: whether it is a single picture, not a clip.
        original_size: (height, width) of the first frame before it was fitted.

    Raises:
        UserError: from the constructor if no frame can be read; later if a frame of a folder
            cannot be read.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        clock: Clock,
        size: tuple[int, int],
        fit: Fit,
        driving_clock: Clock,
        end: BackgroundEnd | None,
        option: str = "--background",
    ) -> None:
        self.is_still = end is None
        self._option = option
        self._frames = frames
        self._clock = clock
        self._driving_clock = driving_clock
        self._size = size
        self._fit: Fit = fit
        self._end = end
        height, width = next(self._timed_frames()).frame.shape[:2]
        self.original_size = (height, width)

    def with_frames(self, frames: Iterable[Frame], option: str) -> Self:
        """Other frames, such as masks, that are shown at the same times as these.

        `option` is the option that named them.
        """
        timing = (self._clock, self._size, self._fit, self._driving_clock, self._end)
        return type(self)(frames, *timing, option)

    @property
    def num_frames(self) -> int:
        """Number of frames of the clip; 1 for a picture."""
        return self._frames.num_frames if isinstance(self._frames, VideoReader) else 1

    def __iter__(self) -> Iterator[Frame]:
        now = Fraction(0)
        successive = self._timed_frames(lambda: now)
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
        """The remarks of `frames`; see `HasRemarks`."""
        return self._frames.remarks if isinstance(self._frames, HasRemarks) else ()

    def _timed_frames(self, moment: Callable[[], Fraction] = Fraction) -> Iterator[_Shown]:
        """Yield the frames in order, again and again if `end` is `loop`.

        Whole passes that end before `moment()`, the current time in seconds, are left out, since a
        clip may be a thousand times shorter than a driving frame.
        """
        elapsed = Fraction(0)  # seconds until this pass began
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
            advice = f"; {ADVICE}" if self._option == "--background" else ""
            raise UserError(f"{self._option} {error}{advice}") from None

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
    """Open the background that a user named: a colour (#00ff00, green), an image or a clip.

    A clip is a video, an animated GIF or a folder of frames, and is decoded while it is shown. A
    png file is always a picture, never a strip of frames. `driving_clock` has the times of the
    driving frames; `end` says what follows the last frame of a clip that can be decoded.

    Raises:
        UserError: nothing has this name, or it cannot be read, or is larger than `limits` allow.
    """
    color = parse_color(text)
    if color is not None:
        return still_background(solid_frame(color, size), size, fit)
    try:
        if not shows_clip(Path(text), limits):
            return still_background(read_image(text, limits), size, fit)
        clip = open_clip(text, limits=limits)
        if end == "loop" and clip.frame_rate > MAX_LOOPED_RATE:
            raise UserError(
                f"{text}: {float(clip.frame_rate):,.0f} frames a second, and at most "
                f"{MAX_LOOPED_RATE:,} are shown again and again; give --background-end hold or stop"
            )
        clock = Clock(clip.frame_rate, clip.uneven_times)
    except UserError as error:
        raise UserError(f"--background {error}; {ADVICE}") from None
    return BackgroundFrames(clip, clock, size, fit, driving_clock, end)


def parse_color(text: str) -> tuple[int, int, int] | None:
    """Parse `#00ff00`, `#0f0` or the name of a colour in CSS to red, green and blue in 0 .. 255.

    None for other text.

    Raises:
        UserError: the text begins with `#` but is not a colour.
    """
    if text.lower() in ImageColor.colormap:
        return ImageColor.getrgb(text)[:3]
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
    """Make a frame, H x W x 3, of one colour (red, green, blue in 0 .. 255)."""
    return np.full((*size, 3), color, np.uint8)


def still_background(image: Frame, size: tuple[int, int], fit: Fit) -> BackgroundFrames:
    """Make a background that is the picture `image`, H x W x 3, for every driving frame."""
    clock = Clock(DEFAULT_FRAME_RATE)  # it has no effect on a single picture
    return BackgroundFrames([image], clock, size, fit, clock, None)


def shows_clip(path: Path, limits: Limits) -> bool:
    """Whether the path is a clip by its contents; by its suffix if Pillow cannot read it."""
    if is_folder(path):
        return True
    is_video = path.suffix.lower() in CONTAINER_SUFFIXES
    try:
        facts = picture_facts(path, limits)
    except Refused:
        raise
    except UserError:
        return is_video  # the reader of videos or pictures says what is wrong
    is_animated = facts.format in ANIMATED_FORMATS and facts.is_animated
    if is_animated and not is_video:
        raise UserError(
            f"{path}: an animation ({facts.format}); animations are read from .gif and videos"
        )
    return is_animated
