"""Reading clips: one reader for training, reconstruction and animation.

A clip is a video file, a folder of frames, or one png with square frames side by side. A reader
holds no open file, so it may be shared by threads and carried into worker processes.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from common.limits import LIMITS, Limits
from media.container import DEFAULT_FRAME_RATE, MissingFrame, VideoError, os_reason
from media.frames import Frame, Frames, HasRemarks
from media.image_clips import STRIP_SUFFIX, FolderReader, StripReader, natural_order
from media.timing import Times
from media.video_file import VideoFile

__all__ = ["MissingFrame", "VideoError", "VideoReader", "is_clip", "natural_order", "open_clip"]

CONTAINER_SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v", ".qt", ".3gp", ".3g2", ".f4v"),
    *(".ts", ".mts", ".m2ts", ".m2t", ".mpg", ".mpeg", ".vob", ".m2v", ".mxf", ".dv"),
    *(".wmv", ".asf", ".flv", ".ogv", ".divx"),
)
KINDS = f"{' '.join(CONTAINER_SUFFIXES[:6])} and others"  # for messages


@runtime_checkable
class VideoReader(HasRemarks, Protocol):
    """The frames of one clip as they are meant to be seen: upright, RGB, 8 bits a channel.

    Pixels are square, all frames of a video have the size of the first, and interlaced ones are
    made whole. Grey and deeper samples are converted, a high dynamic range is tone-mapped to
    BT.709, transparency is composited on white (but for webm, whose alpha FFmpeg's own decoders
    leave out).
    """

    path: Path

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second, exact; the average where it varies."""
        ...

    @property
    def num_frames(self) -> int:
        """Number of frames; at least 1. It follows from the file alone, not from earlier reads.

        Every frame that the container announces if the last one can be decoded, otherwise those
        before the first that cannot be. Single frames in between may still be missing.
        """
        ...

    @property
    def times(self) -> Sequence[Fraction]:
        """When each frame is shown, in seconds since the first: ascending, `num_frames` long."""
        ...

    @property
    def uneven_times(self) -> Times | None:
        """When each frame begins and the last one ends; None where they are evenly spaced.

        A last frame that stays for more than a frame longer than the others is no even spacing.
        """
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """`frames_from` the first."""
        ...

    def frames_from(self, first: int) -> Iterator[Frame]:
        """The frames from `first` on, uint8 H x W x 3, decoded as they are asked for.

        Begins at the key frame before. Ends, with a warning, at a frame that cannot be decoded.

        Raises:
            VideoError: that is frame `first`, or a frame of a folder.
        """
        ...

    def read(self, frames: Sequence[int]) -> Frames:
        """The frames asked for, in that order (repeats allowed): uint8, N x H x W x 3.

        Bit-exact equal to what iteration yields. Decodes from the key frame before, no more.

        Raises:
            VideoError: a frame is out of range.
            MissingFrame: a frame cannot be decoded.
        """
        ...


def is_clip(path: Path) -> bool:
    """Whether the name and kind of `path` are those of a clip; its contents are not looked at."""
    return path.is_dir() or path.suffix.lower() in (*CONTAINER_SUFFIXES, STRIP_SUFFIX)


def open_clip(
    path: Path | str, frame_rate: Fraction = DEFAULT_FRAME_RATE, limits: Limits = LIMITS
) -> VideoReader:
    """The reader of a clip; `frame_rate` is for folders and strips that state none.

    A file that did not change gets the same reader again, with what it learnt about the file.

    Raises:
        VideoError: `path` is missing, not a clip, or larger than `limits` allow.
    """
    path = Path(path)
    try:
        status = path.stat()
        return _open_clip(path, frame_rate, limits, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise VideoError(f"{path}: {os_reason(error)}") from None


# Some 5 KB for a clip of 200 frames. Worker processes begin with what the checks before training
# learnt, so there is room for the clips of a whole data set.
@lru_cache(maxsize=65536)
def _open_clip(
    path: Path, frame_rate: Fraction, limits: Limits, _changed: int, _num_bytes: int
) -> VideoReader:
    if path.is_dir():
        return FolderReader(path, frame_rate, limits)
    if path.suffix.lower() in CONTAINER_SUFFIXES:
        # GIF too: with imageio, later frames may be larger than the size that was checked.
        return VideoFile(path, limits)
    if path.suffix.lower() == STRIP_SUFFIX:
        return StripReader(path, frame_rate, limits)
    raise VideoError(f"{path}: not a clip; expected {KINDS}, a folder of frames, or a strip .png")
