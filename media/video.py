"""Opens clips for training, reconstruction and animation; has the interface of all their readers.

A clip is a video file, a folder of frames, or one png with square frames side by side. A reader
keeps no file open, so threads may share it and worker processes may inherit it.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from common.errors import UserError
from common.limits import LIMITS, Limits
from common.safe_paths import is_folder, require_plain_file
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
    """Interface of the readers of clips. Frames are as a player shows them: upright RGB of 8 bits.

    Pixels are square, all frames of a video have the size of the first, and interlaced frames are
    deinterlaced. Grey and deeper samples are converted, a high dynamic range is tone-mapped to
    BT.709, and transparency is composited on white (except in webm, whose alpha channel FFmpeg's
    own decoders leave out).
    """

    path: Path

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second, exact; the average if it varies."""
        ...

    @property
    def num_frames(self) -> int:
        """Number of frames; at least 1. It depends on the file alone, not on earlier reads.

        If the last frame can be decoded it is the number of frames in the container; otherwise the
        number before the first frame that cannot be decoded. Frames in between may be missing.
        """
        ...

    @property
    def times(self) -> Sequence[Fraction]:
        """Start of each frame, in seconds since the first: ascending, `num_frames` long."""
        ...

    @property
    def uneven_times(self) -> Times | None:
        """Start of each frame and end of the last one, in seconds; None if they are evenly spaced.

        They count as uneven too if the last frame is shown for more than twice the usual time.
        """
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Iterate over all frames; the same as `frames_from(0)`."""
        ...

    def frames_from(self, first: int) -> Iterator[Frame]:
        """Iterate over the frames from `first` on, uint8 H x W x 3, decoded one by one.

        Decoding begins at the key frame before. At a frame that cannot be decoded the iteration
        ends with a warning.

        Raises:
            VideoError: the frame that cannot be decoded is `first`, or one of a folder.
        """
        ...

    def read(self, frames: Sequence[int]) -> Frames:
        """Read frames by number, in the given order (repeats allowed): uint8, N x H x W x 3.

        They are equal to those of the iteration to the last bit. Decoding begins at the nearest key
        frame before.

        Raises:
            VideoError: a frame is out of range.
            MissingFrame: a frame cannot be decoded.
        """
        ...


def is_clip(path: Path) -> bool:
    """Whether `path` is a folder or has the suffix of a clip; its contents are not checked."""
    return is_folder(path) or path.suffix.lower() in (*CONTAINER_SUFFIXES, STRIP_SUFFIX)


def open_clip(
    path: Path | str, frame_rate: Fraction = DEFAULT_FRAME_RATE, limits: Limits = LIMITS
) -> VideoReader:
    """Return the reader of a clip; `frame_rate` is used for folders and strips that state none.

    A file that has not changed gets the same reader again, which remembers its frames and times.

    Raises:
        VideoError: `path` is missing, not a clip, or larger than `limits` allow.
    """
    path = Path(path)
    try:
        require_plain_file(path)
    except UserError as error:
        raise VideoError(str(error)) from None
    try:
        status = path.stat()
        return _open_clip(path, frame_rate, limits, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise VideoError(f"{path}: {os_reason(error)}") from None


# A reader takes some 5 KB for a clip of 200 frames. Worker processes inherit the readers that were
# checked before training, so the cache must hold the clips of a whole data set.
@lru_cache(maxsize=65536)
def _open_clip(
    path: Path, frame_rate: Fraction, limits: Limits, _changed: int, _num_bytes: int
) -> VideoReader:
    if is_folder(path):
        return FolderReader(path, frame_rate, limits)
    if path.suffix.lower() in CONTAINER_SUFFIXES:
        # GIF too: with imageio, later frames may be larger than the size that was checked.
        return VideoFile(path, limits)
    if path.suffix.lower() == STRIP_SUFFIX:
        return StripReader(path, frame_rate, limits)
    raise VideoError(f"{path}: not a clip; expected {KINDS}, a folder of frames, or a strip .png")
