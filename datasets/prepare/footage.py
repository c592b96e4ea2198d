"""What a clip is made from: a clip as it is, or a part of a video cut out along a box.

An importer may have a `Footage` of its own, as `bair_records.py` has.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from math import ceil
from pathlib import Path
from typing import NamedTuple, Protocol

from common.limits import LIMITS, Limits
from media.crops import Box
from media.excerpt import Excerpt
from media.frames import Frame, HasRemarks
from media.video import VideoError, VideoReader, open_clip

SAME_RATE = Fraction(1, 1000)  # of a rate


class Opened(NamedTuple):
    """Frames, uint8 H x W x 3, decoded as they are asked for, and what to keep of each."""

    frame_rate: Fraction
    frames: Iterator[Frame]
    region: "Region | None" = None  # None: the whole picture, fitted
    num_frames: int | None = None  # that a list asks for; None: as many as there are
    clip: HasRemarks | None = None  # what may be odd about them


class Region(NamedTuple):
    """A box of a picture of another size than the frames may have.

    box: in pixels of `size`, which is (height, width); (1, 1) where it is in shares of the picture.
    A width of None is in proportion to the frames. None: in pixels of the frames.
    """

    box: Box
    size: tuple[float, float | None] | None

    def within(self, image_size: tuple[int, int]) -> Box:
        """The same box in pixels of a picture of `image_size` (height, width)."""
        if self.size is None:
            return self.box
        height, width = self.size
        y = image_size[0] / height
        x = y if width is None else image_size[1] / width
        left, top, width, height = self.box
        return Box(left * x, top * y, width * x, height * y)


class Footage(Protocol):
    """Where a clip's frames come from. Opened by another process than the one that found it."""

    @property
    def source(self) -> str:
        """For people: the file, and the part of it."""
        ...

    def open(self, limits: Limits = LIMITS) -> Opened:
        """Raises VideoError: it cannot be read, or is larger than `limits` allow."""
        ...


class Listed(NamedTuple):
    """A clip that an importer found; `split` is None where the data set does not say."""

    name: str
    split: str | None
    footage: Footage


class WholeClip(NamedTuple):
    """Anything that `open_clip` reads, from its first frame to its last."""

    path: Path

    @property
    def source(self) -> str:
        return str(self.path)

    def open(self, limits: Limits = LIMITS) -> Opened:
        clip = open_clip(self.path, limits=limits)
        return Opened(clip.frame_rate, iter(clip), clip=clip)


class BoxedClip(NamedTuple):
    """The frames from `start` up to `end`, which is left out, of a video, cut out along a box.

    Frame numbers count at `frame_rate`, which need not be the file's: what is shown at the same
    time is taken. None: they are those of the file, and so they are where the two rates differ by
    less than SAME_RATE: lists round 30000/1001 to 29.97, or to 30.
    """

    path: Path
    start: int
    end: int
    frame_rate: Fraction | None
    region: Region

    @property
    def source(self) -> str:
        return f"{self.path} frames {self.start} to {self.end}"

    def open(self, limits: Limits = LIMITS) -> Opened:
        clip: VideoReader = open_clip(self.path, limits=limits)
        rate, num_frames = self.frame_rate, self.end - self.start
        if rate is None or abs(rate / clip.frame_rate - 1) < SAME_RATE:
            if self.start >= clip.num_frames:
                raise VideoError(
                    f"{self.path}: has {clip.num_frames} frames, cannot start at {self.start}"
                )
            frames = islice(clip.frames_from(self.start), num_frames)
            return Opened(clip.frame_rate, frames, self.region, num_frames, clip)
        start, end = self.start / rate, self.end / rate
        part = Excerpt(clip, start, end)
        if clip.uneven_times is None:
            num_frames = ceil(end * clip.frame_rate) - ceil(start * clip.frame_rate)
        else:  # there may be fewer than on average, though nothing is missing before the last ends
            num_missing = round((end - clip.uneven_times[-1]) * clip.frame_rate)
            num_frames = part.num_frames + max(num_missing, 0)
        return Opened(part.frame_rate, iter(part), self.region, num_frames, clip)


class Unreadable(NamedTuple):
    """What a list names and cannot be had, for the report."""

    source: str
    reason: str

    def open(self, limits: Limits = LIMITS) -> Opened:
        raise VideoError(self.reason)
