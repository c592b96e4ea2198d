"""Video files through PyAV: opening, finding frames without decoding, decoding, converting."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import Interpolation

from datasets.images import describe_contents, over_white
from datasets.source import Frame
from errors import UserError

DEFAULT_FRAME_RATE = Fraction(25)  # of what states none

# Seconds at the end of a file without a frame that are not taken for damage.
MAX_HELD = Fraction(1, 4)

# swscale's quick default darkens every conversion by about 1.3 of 255; this one is unbiased.
ACCURATE = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


class VideoError(UserError):
    """A clip that cannot be read."""


class MissingFrame(VideoError):
    """One frame of a clip that cannot be decoded.

    `earlier` is the position before `frame` at which to look for one that can; -1 if there is none.
    """

    def __init__(self, message: str, frame: int, earlier: int) -> None:
        super().__init__(message)
        self.frame = frame
        self.earlier = earlier


class Damaged(Exception):
    """A frame cannot be decoded, or only with made-up content."""


class Index(NamedTuple):
    """Presentation times in units of `time_base` seconds, ascending."""

    frames: list[int]
    keys: list[int]  # of the packets at which decoding can start
    time_base: Fraction

    def key_before(self, position: int) -> int:
        """The time from which to decode to get frame `position`."""
        return self.keys[bisect_right(self.keys, self.frames[position]) - 1]


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Raises VideoError where there is no video in `path`."""
    try:
        container = av.open(str(path), "r", metadata_errors="replace")
    except av.FFmpegError as error:
        reason = os_reason(error) if isinstance(error, OSError) else describe_contents(path)
        raise VideoError(f"{path}: not a video: {reason}") from None
    with container:
        stream = best_video(container)
        if stream is None and container.streams.video:
            raise VideoError(f"{path}: holds sound and a cover picture, but no video")
        if stream is None or stream.codec_context is None:
            raise VideoError(f"{path}: holds no video that can be decoded")
        # A worker is one of many and wants few frames: threads would only decode ahead in vain.
        stream.codec_context.thread_count = 1
        yield container, stream


def best_video(container: InputContainer) -> av.VideoStream | None:
    """The video that a player would show; the cover picture of a song is none."""
    for stream in (container.streams.best("video"), *container.streams.video):
        if isinstance(stream, av.VideoStream) and not (
            stream.disposition & Disposition.attached_pic
        ):
            return stream
    return None


def header_frame_rate(stream: av.VideoStream) -> Fraction:
    """Frames per second, exact, by the file's header; a guess where that says nothing."""
    # The average that FFmpeg gives for a GIF covers its first frames only.
    if stream.codec_context.name == "gif" and stream.frames and stream.duration:
        assert stream.time_base is not None
        return Fraction(stream.frames) / (stream.duration * stream.time_base)
    return stream.average_rate or stream.guessed_rate or DEFAULT_FRAME_RATE


def average_frame_rate(index: Index, stated: Fraction) -> Fraction:
    """`stated`, or the average of the index where the two are more than a frame apart at the end.

    What Matroska states need not be kept, and of a browser's recording, which states nothing,
    FFmpeg says 1000.
    """
    num_intervals = len(index.frames) - 1
    seconds = (index.frames[-1] - index.frames[0]) * index.time_base
    if abs(seconds * stated - num_intervals) <= 1:
        return stated
    # Times in ms cannot tell more; it makes 30000/1001 of what is close to it.
    return (num_intervals / seconds).limit_denominator(1001)


def scan_packets(container: InputContainer, stream: av.VideoStream) -> tuple[Index | None, int]:
    """Find the frames of a whole file without decoding any.

    Returns the index, None where time stamps are missing, ambiguous or guessed, and the number of
    frames that the file should have: more than the index has if it is damaged.
    """
    times: list[int | None] = []
    keys: list[int | None] = []
    end = 0
    is_damaged = False
    with suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if not packet.size or packet.is_corrupt:
                is_damaged |= packet.is_corrupt
                continue
            if packet.is_keyframe:
                keys.append(packet.pts)
            if not packet.is_discard:  # an edit list may hide frames that others refer to
                times.append(packet.pts)
                end = max(end, (packet.pts or 0) + (packet.duration or 0))
    # AVI states no times, and FFmpeg's guess is wrong where the codec reorders frames.
    is_guess = container.format.name == "avi" and stream.codec_context.has_b_frames
    index = None if is_guess else _make_index(times, keys, stream.time_base)
    if index is None:
        return None, max(len(times), stream.frames)
    num_frames = len(index.frames)
    stated_end = _stated_end(stream)
    if not is_damaged and (stated_end - end) * index.time_base < MAX_HELD:
        return index, num_frames
    rate = average_frame_rate(index, header_frame_rate(stream)) * index.time_base
    return index, max(num_frames + 1, stream.frames, round((stated_end - index.frames[0]) * rate))


def _make_index(
    times: Sequence[int | None], keys: Sequence[int | None], time_base: Fraction | None
) -> Index | None:
    known = [time for time in times if time is not None]
    known_keys = sorted(key for key in keys if key is not None)
    if not known_keys or len(set(known)) < len(times) or time_base is None:
        return None
    # A clip cut out of a longer one may begin with frames whose references are gone.
    decodable = sorted(time for time in known if time >= known_keys[0])
    return Index(decodable, known_keys, time_base) if decodable else None


def _stated_end(stream: av.VideoStream) -> Fraction:
    """When the last frame should end by what the file's header says, in units of the stream."""
    if stream.duration is not None:
        return Fraction((stream.start_time or 0) + stream.duration)
    # Matroska
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if tag is None or stream.time_base is None:
        return Fraction(0)
    return (int(tag[1]) * 3600 + int(tag[2]) * 60 + Fraction(tag[3])) / stream.time_base


def decode(packets: Iterable[av.Packet]) -> Iterator[av.VideoFrame]:
    """Frames in the order of presentation.

    Raises:
        Damaged: at the first frame that cannot be decoded. A file that merely ends early ends here.
    """
    try:
        for packet in packets:
            for frame in packet.decode() if not packet.is_corrupt else ():
                if frame.is_corrupt:
                    raise Damaged
                yield frame
    except av.FFmpegError as error:
        raise Damaged from error


def decode_from(
    container: InputContainer, stream: av.VideoStream, key: int, first: int
) -> Iterator[av.VideoFrame]:
    """`decode` from the key frame at time `key`; what is shown before time `first` is dropped."""
    try:
        container.seek(key, stream=stream)
    except av.FFmpegError as error:
        raise Damaged from error
    for frame in decode(container.demux(stream)):
        if frame.pts is not None and frame.pts >= first:
            yield frame


def frame_to_rgb(frame: av.VideoFrame) -> Frame:
    """uint8 H x W x 3: upright, any depth scaled to 8 bits, transparency composited on white."""
    has_alpha = any(component.is_alpha for component in frame.format.components)
    samples = frame.to_ndarray(format="rgba" if has_alpha else "rgb24", interpolation=ACCURATE)
    image: Frame = samples.astype(np.uint8, copy=False)
    image = over_white(image) if has_alpha else image
    quarter_turns = round(frame.rotation / 90) % 4  # counterclockwise; PyAV does not apply it
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def os_reason(error: OSError) -> str:
    """`no such file or directory`, without number and path."""
    return (error.strerror or str(error)).lower()
