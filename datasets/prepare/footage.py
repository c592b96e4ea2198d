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
from media.excerpt import Excerpt, rate_of_part
from media.frames import Frame, HasRemarks
from media.video import VideoError, VideoReader, open_clip

SAME_RATE = Fraction(1, 1000)  # frame rates that differ by a smaller part count as equal


class Opened(NamedTuple):
    """The frames of an opened footage, and the part of each picture that is kept."""

    frame_rate: Fraction
    frames: Iterator[Frame]  # uint8 H x W x 3, decoded one by one
    region: "Region | None" = None  # None: the whole picture, fitted to the size
    num_frames: int | None = None  # number that a list asks for; None: all there are
    clip: HasRemarks | None = None  # the reader, if it has remarks on the frames


class Region(NamedTuple):
    """A box that a list states for a picture of some size, which need not be that of the frames.

    box: in pixels of a picture of `size`.
    size: (height, width); (1, 1) if the box is in parts of the picture. A width of None is in
        proportion to the frames. None instead of a size: the box is in pixels of the frames.
    """

    box: Box
    size: tuple[float, float | None] | None

    def within(self, image_size: tuple[int, int]) -> Box:
        """Return the box in pixels of a picture of `image_size` (height, width)."""
        if self.size is None:
            return self.box
        height, width = self.size
        y = image_size[0] / height
        x = y if width is None else image_size[1] / width
        left, top, width, height = self.box
        return Box(left * x, top * y, width * x, height * y)


class Footage(Protocol):
    """Interface of a source of frames, which another process may open than the one that made it."""

    @property
    def source(self) -> str:
        """Describes the file, and the part of it, for people."""
        ...

    def open(self, limits: Limits = LIMITS) -> Opened:
        """Open the frames; raises VideoError if they cannot be read or exceed `limits`."""
        ...


class Listed(NamedTuple):
    """A clip that an importer found; `split` is None where the data set does not say."""

    name: str
    split: str | None
    footage: Footage


class WholeClip(NamedTuple):
    """All frames of a clip that `open_clip` reads."""

    path: Path

    @property
    def source(self) -> str:
        return str(self.path)

    def open(self, limits: Limits = LIMITS) -> Opened:
        clip = open_clip(self.path, limits=limits)
        return Opened(clip.frame_rate, iter(clip), clip=clip)


class BoxedClip(NamedTuple):
    """The frames of a video from number `start` to `end` - 1, cut out along a box.

    frame_rate: the rate by which the frame numbers count. If it is not the file's, the frames at
        the same times are used. None: the numbers are those of the file. So they are if the rates
        differ by less than SAME_RATE, because lists round 30000/1001 to 29.97 or 30.
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
            part_rate = rate_of_part(clip, self.start, min(self.end, clip.num_frames))
            return Opened(part_rate, frames, self.region, num_frames, clip)
        start, end = self.start / rate, self.end / rate
        part = Excerpt(clip, start, end)
        if clip.uneven_times is None:
            num_frames = ceil(end * clip.frame_rate) - ceil(start * clip.frame_rate)
        else:  # an uneven part may have fewer frames than average; only an early end lacks some
            num_missing = round((end - clip.uneven_times[-1]) * clip.frame_rate)
            num_frames = part.num_frames + max(num_missing, 0)
        return Opened(part.frame_rate, iter(part), self.region, num_frames, clip)


class Unreadable(NamedTuple):
    """A clip of a list that cannot be read; it appears in the report as rejected."""

    source: str
    reason: str

    def open(self, limits: Limits = LIMITS) -> Opened:
        raise VideoError(self.reason)
