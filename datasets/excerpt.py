"""A part of a clip, given by times as people type them."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from math import ceil

from datasets.source import Frame, Frames
from datasets.video import VideoError, VideoReader
from errors import UserError

TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)


def parse_time(text: str) -> Fraction:
    """Seconds, exact, of `12.5`, `1:02.5` (minutes) or `0:01:02` (hours).

    Raises:
        UserError: it is none of these.
    """
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{text}: not a time; write seconds (12.5), 1:02.5 or 0:01:02")
    hours, minutes, seconds = int(match[1] or 0), int(match[2] or 0), Fraction(match[3])
    if (match[1] and minutes >= 60) or (match[2] and seconds >= 60):
        raise UserError(f"{text}: not a time; minutes and seconds behind a colon are below 60")
    return hours * 3600 + minutes * 60 + seconds


class Excerpt:
    """The frames of `clip` whose time lies in [start, end), as a VideoReader.

    Frame n is taken to be shown at n / frame_rate, also where the rate of the file varies. An
    `end` behind the last frame is that of the clip. Times are in seconds.

    Raises:
        VideoError: no frame lies between `start` and `end`.
    """

    def __init__(
        self, clip: VideoReader, start: Fraction = Fraction(0), end: Fraction | None = None
    ) -> None:
        if start < 0:
            raise ValueError(f"expected a start of at least 0, found {start}")
        self.path = clip.path
        self.frame_rate = clip.frame_rate
        self._clip = clip
        self._first = ceil(start * self.frame_rate)
        stop = clip.num_frames
        if self._first >= stop:
            length = _in_seconds(stop / self.frame_rate)
            raise VideoError(f"{self.path}: lasts {length}, cannot start at {_in_seconds(start)}")
        if end is not None:
            stop = min(stop, ceil(end * self.frame_rate))
            if end <= start:
                raise VideoError(
                    f"{self.path}: starts at {_in_seconds(start)}, cannot end at {_in_seconds(end)}"
                )
            if self._first >= stop:
                raise VideoError(
                    f"{self.path}: no frame from {_in_seconds(start)} to {_in_seconds(end)}; they "
                    f"are {_in_seconds(1 / self.frame_rate)} apart"
                )
        self.num_frames = stop - self._first

    @property
    def start(self) -> Fraction:
        """When the first frame is shown, in seconds since the first of the clip; for its sound."""
        return self._first / self.frame_rate

    @property
    def times(self) -> Sequence[Fraction]:
        times = self._clip.times[self._first : self._first + self.num_frames]
        return [time - times[0] for time in times]

    @property
    def size(self) -> tuple[int, int]:
        return self._clip.size

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(0)

    def frames_from(self, first: int) -> Iterator[Frame]:
        return islice(self._clip.frames_from(self._first + first), self.num_frames - first)

    def read(self, frames: Sequence[int]) -> Frames:
        for frame in frames:
            if not 0 <= frame < self.num_frames:
                raise VideoError(
                    f"{self.path}: the excerpt has no frame {frame}, only {self.num_frames}"
                )
        return self._clip.read([self._first + frame for frame in frames])


def _in_seconds(seconds: Fraction) -> str:
    return f"{float(seconds):g} s"
