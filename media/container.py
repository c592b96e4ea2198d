"""Opens video files through PyAV and decodes their packets; only known, safe formats are read."""

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
from common.safe_paths import require_plain_file
from media.frame_conversion import pixel_aspect, square_size
from media.picture_files import describe_contents
from media.watched import check_clip

DEFAULT_FRAME_RATE = Fraction(25)  # for clips that state none

# Containers and streams that are read, by FFmpeg's names. FFmpeg knows 300 more, among them scripts
# that name other files and addresses (concat, hls, dash, sdp) or devices (lavfi).
FORMATS: Final = (
    *("mov", "matroska", "avi", "gif", "mpegts", "mpeg", "asf", "flv", "ogg", "mxf", "dv"),
    *("apng", "webp", "ivf", "mpegvideo", "m4v", "h264", "hevc", "obu"),
    *("wav", "w64", "mp3", "aac", "flac", "aiff", "caf", "amr", "ac3", "eac3", "dts"),
    *("au", "ape", "wv", "tta", "opus"),
)


class VideoError(UserError):
    """A clip cannot be read."""


class MissingFrame(VideoError):
    """One frame of a clip cannot be decoded.

    frame: its number. earlier: number of the nearest frame before it that may be decodable; -1 if
        there is none.
    """

    def __init__(self, message: str, frame: int, earlier: int) -> None:
        super().__init__(message)
        self.frame = frame
        self.earlier = earlier


class Damaged(Exception):
    """A frame cannot be decoded, or the decoder had to invent part of its content."""


def location(path: Path) -> str:
    """Return the path as FFmpeg needs it: absolute, since `a:b` would be read as protocol `a`."""
    return str(path.absolute())


def open_container(path: Path, limits: Limits | None = LIMITS) -> InputContainer:
    """Open a file if its format is in FORMATS. The file cannot make FFmpeg open other files.

    FFmpeg detects the format from the contents. A file that was not opened before is first tried
    in another process, within limits of time and memory.

    Args:
        limits: largest frame that FFmpeg decodes while it detects the streams; None: no limit.

    Raises:
        VideoError: the file is not a plain one, or takes too much time or memory to open.
        av.FFmpegError: the format is another, or the file cannot be read; see `container_reason`.
    """
    try:
        require_plain_file(path)
        check_clip(path, limits)
    except UserError as error:
        raise VideoError(str(error)) from None
    return av.open(
        location(path),
        "r",
        metadata_errors="replace",
        options={} if limits is None else {"max_pixels": _decoder_limit(limits)},
        container_options={"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"},
    )


def container_reason(path: Path, error: av.FFmpegError) -> str:
    """Say for a message why `open_container` failed."""
    if isinstance(error, OSError):
        return os_reason(error)
    return describe_contents(path)


@contextmanager
def open_video(
    path: Path, limits: Limits = LIMITS
) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open the file `path` and its video stream within the `with` block.

    Raises:
        VideoError: the file holds no video, or its frames are larger than `limits` allow.
    """
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
        prepare_decoder(stream.codec_context, limits)
        yield container, stream


def prepare_decoder(decoder: av.CodecContext, limits: Limits | None) -> None:
    """Set the largest frame that a decoder decodes, and that it uses one thread."""
    if limits is not None:
        decoder.options = {"max_pixels": _decoder_limit(limits)}
    # Many workers read a few frames each, so threads would decode frames that nobody needs.
    decoder.thread_count = 1


def _decoder_limit(limits: Limits) -> str:
    """Value of FFmpeg's option max_pixels, which also stops frames that grow within a stream.

    Decoders round sizes up to blocks of 64 pixels, so their limit is higher; `_check_size` has the
    exact one.
    """
    return str(min(limits.frame + 64 * 2**16, 2**31 - 1))


def _check_size(path: Path, stream: av.VideoStream, limit: int) -> None:
    """Raise VideoError if frames, scaled to square pixels, have more than `limit` pixels."""
    size = stream.width, stream.height
    if 0 in size:  # FFmpeg's limit hid the size, or FFmpeg has decoded no frame yet
        with suppress(av.FFmpegError), open_container(path, None) as container:
            again = best_video(container)
            size = size if again is None else (again.width, again.height)
    try:
        check_pixels(path, *square_size(*size, pixel_aspect(stream)), limit, "frames")
    except UserError as error:
        raise VideoError(str(error)) from None


def best_video(container: InputContainer) -> av.VideoStream | None:
    """Return the video stream that a player would show; the cover picture of a song is not one."""
    for stream in (container.streams.best("video"), *container.streams.video):
        if isinstance(stream, av.VideoStream) and not (
            stream.disposition & Disposition.attached_pic
        ):
            return stream
    return None


def decode(packets: Iterable[av.Packet], begin: int | None = None) -> Iterator[av.VideoFrame]:
    """Decode packets to frames in the order of presentation.

    Frames with a time before `begin`, in units of the stream, are dropped. If the file merely ends
    early, so do the frames.

    Raises:
        Damaged: a frame cannot be decoded.
    """
    try:
        for packet in packets:
            for frame in packet.decode() if not packet.is_corrupt else ():
                if begin is not None and frame.pts is not None and frame.pts < begin:
                    continue  # the frames that it refers to may be missing
                if frame.is_corrupt:
                    raise Damaged
                yield frame
    except av.FFmpegError as error:
        raise Damaged from error


def os_reason(error: OSError) -> str:
    """Return the reason of an OSError, such as `no such file or directory`, without its number."""
    return (error.strerror or str(error)).lower()
