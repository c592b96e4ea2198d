"""When the frames of a clip are shown: evenly spaced, or each at a time of its own.

Phones, screen recorders and GIFs with pauses write frames at a varying rate, and frames that were
dropped leave gaps. The times of such a clip begin with 0, one for each frame, and close with the
moment at which the last frame ends.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from media.video_index import MAX_UNEVENNESS

Times = Sequence[Fraction]  # seconds, ascending, one more than there are frames


class Clock(NamedTuple):
    """When frames are shown.

    frame_rate: frames per second; the average where there are `times`.
    times: of frames that are not evenly spaced.
    """

    frame_rate: Fraction
    times: Times | None = None

    def begin(self, position: int) -> Fraction:
        """When frame `position` begins, in seconds; for the number of frames, when the last ends.

        What lies behind the end of `times` is evenly spaced.
        """
        if self.times is None:
            return position / self.frame_rate
        beyond = position - (len(self.times) - 1)
        return self.times[position] if beyond <= 0 else self.times[-1] + beyond / self.frame_rate


def are_even(times: Sequence[int], rate: Fraction) -> bool:
    """Whether frames at `times` are evenly spaced, `rate` of them in a unit of time.

    None is off by more than MAX_UNEVENNESS. In whole numbers, which is fast for long clips.
    """
    steps, units = rate.as_integer_ratio()
    limit = units * MAX_UNEVENNESS
    return all(abs((time - times[0]) * steps - n * units) <= limit for n, time in enumerate(times))
