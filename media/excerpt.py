"""Cuts a part out of a clip by its start and end time, and parses times as people type them."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from math import ceil

from common.errors import UserError
from media.clip_checks import check_range
from media.frames import Frame, Frames
from media.timing import Clock, Times
from media.video import VideoError, VideoReader
from media.video_index import average_frame_rate

TIME = re.compile(r"(?:(?:(\d{1,9}):)?(\d{1,9}):)?(\d{1,9}(?:\.\d{0,18})?|\.\d{1,18})", re.ASCII)


def parse_time(text: str) -> Fraction:
    """Parse `12.5`, `1:02.5` (minutes) or `0:01:02` (hours) to seconds, exact.

    Raises:
        UserError: the text is not a time.
    """
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{text}: not a time; write seconds (12.5), 1:02.5 or 0:01:02")
    hours, minutes, seconds = int(match[1] or 0), int(match[2] or 0), Fraction(match[3])
    if (match[1] and minutes >= 60) or (match[2] and seconds >= 60):
        raise UserError(f"{text}: not a time; minutes and seconds after a colon are below 60")
    return hours * 3600 + minutes * 60 + seconds


def rate_of_part(clip: VideoReader, first: int, stop: int) -> Fraction:
    """Return the frames per second of the frames from number `first` to `stop` - 1 of `clip`.

    It is the clip's own rate if its frames are evenly spaced. Otherwise it is the average of the
    part alone: a gap of hours elsewhere in the clip would leave a folder a frame an hour.
    """
    times = clip.uneven_times
    if times is None or stop - first == clip.num_frames:
        return clip.frame_rate
    if stop - first == 1:
        return 1 / (times[stop] - times[first])
    return average_frame_rate(times[first:stop], Fraction(1), clip.frame_rate)


class Excerpt:
    """A VideoReader of the frames of `clip` that begin in [start, end).

    Times are in seconds since the clip's first frame. An `end` after the last frame means the end
    of the clip.

    Attributes:
        frame_rate: see `rate_of_part`.
        start: when the first frame of the excerpt begins, to cut its sound.
        uneven_times: times since `start`; the last frame ends at `end`, where the clip's next
            frame begins, or with the clip.

    Raises:
        VideoError: no frame begins between `start` and `end`.
    """

    def __init__(
        self, clip: VideoReader, start: Fraction = Fraction(0), end: Fraction | None = None
    ) -> None:
        if start < 0:
            raise ValueError(f"expected a start of at least 0, found {start}")
        self.path = clip.path
        self._clip = clip
        clock = Clock(clip.frame_rate, clip.uneven_times)
        times = clock.times
        stop = clip.num_frames
        self._first = min(_first_from(start, clock), stop)
        if self._first == stop:
            length = _in_seconds(clock.begin(stop))
            raise VideoError(f"{self.path}: lasts {length}, cannot start at {_in_seconds(start)}")
        if end is not None:
            stop = min(stop, _first_from(end, clock))
            if end <= start:
                raise VideoError(
                    f"{self.path}: starts at {_in_seconds(start)}, cannot end at {_in_seconds(end)}"
                )
            if self._first >= stop:
                raise VideoError(
                    f"{self.path}: no frame from {_in_seconds(start)} to {_in_seconds(end)}; "
                    + self._describe_gap(clock)
                )
        self.num_frames = stop - self._first
        self.frame_rate = rate_of_part(clip, self._first, stop)
        self.start = clock.begin(self._first)
        self.uneven_times: Times | None = None
        if times is not None:
            last = self._end_of_last(times, stop)
            shown = [*times[self._first : stop], last if end is None else min(last, end)]
            self.uneven_times = [time - self.start for time in shown]

    def _end_of_last(self, times: Times, stop: int) -> Fraction:
        """When frame `stop` - 1 ends, one of the clip's `times`.

        A clip's last frame, if the file does not state its length, lasts for the average of the
        clip; after a gap of hours for that of the excerpt, which is shorter.
        """
        begin, end = times[stop - 1 : stop + 1]
        if stop == self._clip.num_frames and end - begin == 1 / self._clip.frame_rate:
            end = min(end, begin + 1 / self.frame_rate)
        return end

    def _describe_gap(self, clock: Clock) -> str:
        if clock.times is None:
            return f"they are {_in_seconds(1 / clock.frame_rate)} apart"
        before, after = clock.times[self._first - 1], clock.times[self._first]
        return f"one begins at {_in_seconds(before)}, the next at {_in_seconds(after)}"

    @property
    def times(self) -> Sequence[Fraction]:
        times = self._clip.times[self._first : self._first + self.num_frames]
        return [time - times[0] for time in times]

    @property
    def remarks(self) -> Sequence[str]:
        return self._clip.remarks

    @property
    def size(self) -> tuple[int, int]:
        return self._clip.size

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(0)

    def frames_from(self, first: int) -> Iterator[Frame]:
        return islice(self._clip.frames_from(self._first + first), self.num_frames - first)

    def read(self, frames: Sequence[int]) -> Frames:
        check_range(self.path, frames, self.num_frames, "the excerpt")
        return self._clip.read([self._first + frame for frame in frames])


def _first_from(time: Fraction, clock: Clock) -> int:
    """Number of the first frame that begins at `time` or later; it may be after the last frame."""
    if clock.times is None:
        return ceil(time * clock.frame_rate)
    return bisect_left(clock.times, time)


def _in_seconds(seconds: Fraction) -> str:
    return f"{float(seconds):g} s"
