"""When the frames of a clip are shown: evenly spaced, or each at a time of its own.

Phones, screen recorders and GIFs with pauses write frames at a varying rate, and frames that were
dropped leave gaps. The times of such a clip begin with 0, one for each frame, and close with the
moment at which the last frame ends.
"""

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av

from datasets.container import VideoError, open_video
from datasets.video import CONTAINER_SUFFIXES, VideoReader

# Of the time between two frames. Files that count in ms round by less; nobody sees or hears it.
MAX_UNEVENNESS = Fraction(1, 4)

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


def uneven_times(clip: VideoReader) -> Times | None:
    """When each frame of `clip` begins and the last one ends; None where they are evenly spaced.

    A last frame that stays for more than a frame longer than the others is no even spacing.
    """
    rate, times = clip.frame_rate, clip.times
    last = max(last_duration(clip.path) or 0, 1 / rate)
    is_even = all(abs(time * rate - n) <= MAX_UNEVENNESS for n, time in enumerate(times))
    if is_even and last <= 2 / rate:
        return None
    return [*times, times[-1] + last]


def last_duration(path: Path) -> Fraction | None:
    """For how many seconds a video file shows its last frame; None where it does not say.

    Takes the reading of its last group of pictures.
    """
    if path.suffix.lower() not in CONTAINER_SUFFIXES or not path.is_file():
        return None
    last: int | None = None
    end: int | None = None
    delay: int | None = None
    with suppress(VideoError, av.FFmpegError), open_video(path) as (container, stream):
        for packet in container.demux(stream):
            if packet.pts is None or packet.dts is None:
                break
            if delay is None:
                # Packets lie in the order of decoding, and their durations are those of this order.
                delay = packet.pts - packet.dts
                if stream.duration is not None:
                    container.seek((stream.start_time or 0) + stream.duration, stream=stream)
            if not packet.is_discard:
                last = max(last or 0, packet.pts)
                end = max(end or 0, packet.dts + (packet.duration or 0))
    if last is None or end is None or delay is None or stream.time_base is None:
        return None
    return max(end + delay - last, 0) * stream.time_base
