"""Video files through PyAV: opening and decoding."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition

from datasets.images import describe_contents
from errors import UserError

DEFAULT_FRAME_RATE = Fraction(25)  # of what states none


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


def location(path: Path) -> str:
    """For FFmpeg, which takes what stands before a colon in a relative name for a protocol."""
    return str(path.absolute())


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Raises VideoError where there is no video in `path`."""
    try:
        container = av.open(location(path), "r", metadata_errors="replace")
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


def decode(packets: Iterable[av.Packet], begin: int | None = None) -> Iterator[av.VideoFrame]:
    """Frames in the order of presentation; what is shown before time `begin` is dropped.

    Raises:
        Damaged: at the first frame that cannot be decoded. A file that merely ends early ends here.
    """
    try:
        for packet in packets:
            for frame in packet.decode() if not packet.is_corrupt else ():
                if begin is not None and frame.pts is not None and frame.pts < begin:
                    continue  # what it refers to may be missing
                if frame.is_corrupt:
                    raise Damaged
                yield frame
    except av.FFmpegError as error:
        raise Damaged from error


def os_reason(error: OSError) -> str:
    """`no such file or directory`, without number and path."""
    return (error.strerror or str(error)).lower()
