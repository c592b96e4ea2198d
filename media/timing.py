"""Times at which the frames of a clip are shown: evenly spaced, or a list of times.

Phones, screen recorders and GIFs with pauses write frames at a varying rate, and dropped frames
leave gaps. Such a clip has a list of times in seconds: 0 for the first frame, the start of every
other frame, and the end of the last one.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from media.video_index import MAX_UNEVENNESS

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
