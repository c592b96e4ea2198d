"""Video files through PyAV: opening and decoding."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.stream import Disposition

from common.errors import UserError
from common.limits import LIMITS, Limits, check_pixels
from media.frame_conversion import pixel_aspect, square_size
from media.images import describe_contents

DEFAULT_FRAME_RATE = Fraction(25)  # of what states none

# Containers and streams that are read, as FFmpeg calls them. It knows 300 more, among them scripts
# that name other files and addresses (concat, hls, dash, sdp) or devices (lavfi).
FORMATS: Final = (
    *("mov", "matroska", "avi", "gif", "mpegts", "mpeg", "asf", "flv", "ogg", "mxf", "dv"),
    *("apng", "webp", "ivf", "mpegvideo", "m4v", "h264", "hevc", "obu"),
    *("wav", "w64", "mp3", "aac", "flac", "aiff", "caf", "amr", "ac3", "eac3", "dts"),
    *("au", "ape", "wv", "tta", "opus"),
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


def location(path: Path) -> str:
    """For FFmpeg, which takes what stands before a colon in a relative name for a protocol."""
    return str(path.absolute())


def open_container(path: Path, limits: Limits | None = LIMITS) -> InputContainer:
    """A file of one of FORMATS, which opens no other.

    Args:
        limits: of decoders that look into it to find out what it is; None: they may look.

    Raises:
        av.FFmpegError: it is none, or cannot be read; see `container_reason`.
    """
    return av.open(
        location(path),
        "r",
        metadata_errors="replace",
        options={} if limits is None else {"max_pixels": _decoder_limit(limits)},
        container_options={"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"},
    )


def container_reason(path: Path, error: av.FFmpegError) -> str:
    """Why `open_container` failed."""
    if isinstance(error, OSError):
        return os_reason(error)
    return describe_contents(path)


@contextmanager
def open_video(
    path: Path, limits: Limits = LIMITS
) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Raises VideoError where there is no video in `path`, or a larger one than `limits` allow."""
    try:
        container = open_container(path, limits)
    except av.FFmpegError as error:
        raise VideoError(f"{path}: not a video: {container_reason(path, error)}") from None
    with container:
        stream = best_video(container)
        if stream is None and container.streams.video:
            raise VideoError(f"{path}: holds sound and a cover picture, but no video")
        if stream is None or stream.codec_context is None:
            raise VideoError(f"{path}: holds no video that can be decoded")
        _check_size(path, stream, limits.frame)
        stream.codec_context.options = {"max_pixels": _decoder_limit(limits)}
        # A worker is one of many and wants few frames: threads would only decode ahead in vain.
        stream.codec_context.thread_count = 1
        yield container, stream


def _decoder_limit(limits: Limits) -> str:
    """Of a frame's pixels, for decoders, which also see frames that grow in the middle of a stream.

    They count rows in blocks of 64 pixels, so they get some more; `_check_size` is exact.
    """
    return str(min(limits.frame + 64 * 2**16, 2**31 - 1))


def _check_size(path: Path, stream: av.VideoStream, limit: int) -> None:
    """Raise VideoError where frames, as they are shown, have more than `limit` pixels."""
    size = stream.width, stream.height
    if 0 in size:  # a decoder refused to tell more, or has seen no frame yet
        with suppress(av.FFmpegError), open_container(path, None) as container:
            again = best_video(container)
            size = size if again is None else (again.width, again.height)
    try:
        check_pixels(path, *square_size(*size, pixel_aspect(stream)), limit, "frames")
    except UserError as error:
        raise VideoError(str(error)) from None


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
