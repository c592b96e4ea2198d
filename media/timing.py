"""Times at which the frames of a clip are shown: evenly spaced, or a list of times.

Phones, screen recorders and GIFs with pauses write frames at a varying rate, and dropped frames
leave gaps. Such a clip has a list of times in seconds: 0 for the first frame, the start of every
other frame, and the end of the last one.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.json_files import MIN_RATE
from media.video_index import MAX_UNEVENNESS

MAX_REPETITIONS = 10_000  # of frames in a folder, where one that lasts is written again and again
UNEVEN_TIME_BASE = Fraction(1, 90000)  # seconds; exact for 24, 25, 30, 50 and 60 frames per second
MAX_EVEN_SECONDS = 2**16  # from frame to frame, if all are; FFmpeg's mp4 ends with 32 bits there
MAX_SECONDS = 6 * 3600  # of a frame; mp4 has 31 bits for it, in units of UNEVEN_TIME_BASE

Times = Sequence[Fraction]  # seconds, ascending, one more than there are frames


class Clock(NamedTuple):
    """The times at which frames are shown.

    frame_rate: frames per second; the average if there are `times`.
    times: the times of frames that are not evenly spaced; None if they are.
    """

    frame_rate: Fraction
    times: Times | None = None

    def begin(self, position: int) -> Fraction:
        """Return when frame `position` begins, in seconds.

        For a `position` equal to the number of frames it is the end of the last frame. Frames after
        the end of `times` are evenly spaced.
        """
        if self.times is None:
            return position / self.frame_rate
        beyond = position - (len(self.times) - 1)
        return self.times[position] if beyond <= 0 else self.times[-1] + beyond / self.frame_rate


def are_even(times: Sequence[int], rate: Fraction) -> bool:
    """Whether frames at `times` are evenly spaced, with `rate` frames in a unit of time.

    No frame may be off by more than MAX_UNEVENNESS.
    """
    # Computed in whole numbers, which is fast for long clips.
    steps, units = rate.as_integer_ratio()
    limit = units * MAX_UNEVENNESS
    return all(abs((time - times[0]) * steps - n * units) <= limit for n, time in enumerate(times))


def remarks_on_rate(rate: Fraction, written: Fraction) -> list[str]:
    """Return a line for the user if frames at `rate` a second are written as `written` a second,
    the nearest that is possible. Rates with too many digits, which differ by a rounding, need none.
    """
    if abs(written - rate) <= rate / 1000:
        return []
    return [f"impossible frame rate; {float(rate):.3g} frames a second, now {float(written):.3g}"]


def check_times(path: Path, clock: Clock, *, is_folder: bool) -> None:
    """Raise UserError if one of the frames lasts longer than can be written to `path`.

    A file of some kilobytes may say that a frame lasts for years. In a folder, whose frames are
    evenly spaced, it would be repeated until the disk is full.
    """
    if clock.times is None:
        step, largest = 1 / clock.frame_rate, 1 / MIN_RATE if is_folder else MAX_EVEN_SECONDS
        if step > largest:
            raise UserError(
                f"{path}: the frames are {float(step):,.0f} seconds apart; at most "
                f"{float(largest):,.0f} can be written"
            )
        return
    if not clock.times:  # those of a camera, which come one by one
        return
    num_frames = len(clock.times) - 1
    num_written = ceil(clock.times[-1] * clock.frame_rate)
    longest = max(end - begin for begin, end in pairwise(clock.times))
    if is_folder and num_written > num_frames + MAX_REPETITIONS:
        problem = f"a folder would get {num_written:,} frames for its {num_frames:,}"
    elif not is_folder and longest > MAX_SECONDS:
        problem = f"a video file has no room for more than {MAX_SECONDS // 3600} hours"
    else:
        return
    raise UserError(
        f"{path}: a frame of the clip lasts {float(longest):,.0f} seconds, and {problem}; choose "
        "a part with --start and --end"
    )
