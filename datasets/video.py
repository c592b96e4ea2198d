"""Reading clips: one reader for training, reconstruction and animation.

A clip is a video file, a folder of frames, or one png with square frames side by side. A reader
holds no open file, so it may be shared by threads and carried into worker processes.
"""

import logging
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import av
import numpy as np
from PIL import Image

from datasets.container import (
    DEFAULT_FRAME_RATE,
    Damaged,
    Index,
    MissingFrame,
    VideoError,
    average_frame_rate,
    decode,
    decode_from,
    frame_to_rgb,
    header_frame_rate,
    open_video,
    os_reason,
    scan_packets,
)
from datasets.frame_folder import stated_frame_rate
from datasets.images import IMAGE_SUFFIXES, describe_contents, read_image
from datasets.leftovers import own_entries
from datasets.source import Frame, Frames
from errors import UserError

__all__ = ["MissingFrame", "VideoError", "VideoReader", "is_clip", "open_clip"]

CONTAINER_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
STRIP_SUFFIX = ".png"

logger = logging.getLogger(__name__)


@runtime_checkable
class VideoReader(Protocol):
    """The frames of one clip as they are meant to be seen: upright, RGB, 8 bits a channel.

    Grey and deeper samples are converted, transparency is composited on white (but for webm, whose
    alpha FFmpeg's own decoders leave out).
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
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame, after rotation."""
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


def open_clip(path: Path | str, frame_rate: Fraction = DEFAULT_FRAME_RATE) -> VideoReader:
    """The reader of a clip; `frame_rate` is for folders and strips that state none.

    A file that did not change gets the same reader again, with what it learnt about the file.

    Raises:
        VideoError: `path` is missing or not a clip.
    """
    path = Path(path)
    try:
        status = path.stat()
        return _open_clip(path, frame_rate, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise VideoError(f"{path}: {os_reason(error)}") from None


@lru_cache(maxsize=1024)  # some 20 KB each; scanning the packets again costs about 1 ms
def _open_clip(path: Path, frame_rate: Fraction, _changed: int, _num_bytes: int) -> VideoReader:
    if path.is_dir():
        return _FolderReader(path, frame_rate)
    if path.suffix.lower() in CONTAINER_SUFFIXES:
        return _ContainerReader(path)
    if path.suffix.lower() == STRIP_SUFFIX:
        return _StripReader(path, frame_rate)
    kinds = " ".join(CONTAINER_SUFFIXES)
    raise VideoError(f"{path}: not a clip; expected {kinds}, a folder of frames, or a strip .png")


class _ContainerReader:
    """Frames of a container, found by the time stamps of its packets.

    Where those are missing or a guess (as in AVI), the clip is decoded from the start and its
    frames are counted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_video(path) as (_, stream):
            self._header_rate = header_frame_rate(stream)
        self._reported = False

    @cached_property
    def frame_rate(self) -> Fraction:
        if self._index is None:
            return self._header_rate
        return average_frame_rate(self._index, self._header_rate)

    @cached_property
    def num_frames(self) -> int:
        if self._index is not None:
            count = len(self._index.frames)
            # Damage is mostly an end that is missing: the last frame tells, and costs one GOP.
            with suppress(MissingFrame):
                list(self._seek(self._index, [count - 1]))
                self._report_damage(count)
                return count
        return sum(1 for _ in self._decode_from(0))

    @cached_property
    def times(self) -> Sequence[Fraction]:
        if self._index is None:
            return regular_times(self.num_frames, self.frame_rate)
        first, *_ = times = self._index.frames[: self.num_frames]
        return [(time - first) * self._index.time_base for time in times]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.read([0]).shape[1:3]
        return height, width

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(0)

    def frames_from(self, first: int) -> Iterator[Frame]:
        return map(frame_to_rgb, self._decode_from(first))

    def read(self, frames: Sequence[int]) -> Frames:
        wanted = sorted(set(frames))
        if self._index is not None:
            _check_range(self.path, frames, len(self._index.frames))
            found = self._seek(self._index, wanted)
        else:
            _check_range(self.path, frames, self.num_frames)
            found = self._count_up_to(wanted)
        images = {position: frame_to_rgb(frame) for position, frame in found}
        return _stack(self.path, [images[position] for position in frames])

    def _seek(self, index: Index, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        times = index.frames
        position = -1  # of the last frame that was decoded
        decoded: Iterator[av.VideoFrame] = iter(())
        with open_video(self.path) as (container, stream):
            for target in wanted:
                key = index.key_before(target)
                if position < 0 or key > times[position]:
                    decoded = decode_from(container, stream, key, key)
                    position = bisect_left(times, key) - 1
                while position < target:
                    frame = _next_or_none(decoded)
                    if frame is None or frame.pts != times[position + 1]:
                        message = f"{self.path}: frame {target} cannot be decoded"
                        raise MissingFrame(message, target, position)
                    position += 1
                    if position == target:
                        yield position, frame

    def _count_up_to(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        positions = set(wanted)
        for position, frame in enumerate(islice(self._decode_from(0), wanted[-1] + 1)):
            if position in positions:
                yield position, frame

    def _decode_from(self, first: int) -> Iterator[av.VideoFrame]:
        """Every frame from `first` on, up to the end or to one that cannot be decoded."""
        count = first
        frames: Iterator[av.VideoFrame]
        with open_video(self.path) as (container, stream), suppress(Damaged):
            if self._index is None:
                frames = islice(decode(container.demux(stream)), first, None)
            else:
                _check_range(self.path, [first], len(self._index.frames))
                key, begin = self._index.key_before(first), self._index.frames[first]
                frames = decode_from(container, stream, key, begin)
            for frame in frames:
                yield frame
                count += 1
        if count == 0:
            raise VideoError(f"{self.path}: none of its frames can be decoded")
        if count == first:
            raise MissingFrame(f"{self.path}: frame {first} cannot be decoded", first, first - 1)
        self._report_damage(count)

    @property
    def _index(self) -> Index | None:
        return self._scan[0]

    @cached_property
    def _scan(self) -> tuple[Index | None, int]:
        with open_video(self.path) as (container, stream):
            return scan_packets(container, stream)

    def _report_damage(self, count: int) -> None:
        _, promised = self._scan
        if count < promised and not self._reported:
            logger.warning(
                "%s: frames after %d of %d cannot be decoded; using %d",
                *(self.path, count, promised, count),
            )
            self._reported = True


def _next_or_none(frames: Iterator[av.VideoFrame]) -> av.VideoFrame | None:
    try:
        return next(frames, None)
    except Damaged:
        return None


class _FolderReader:
    """Frames that are files of their own, in natural order."""

    def __init__(self, path: Path, frame_rate: Fraction) -> None:
        self.path = path
        self.frame_rate = stated_frame_rate(path) or frame_rate
        names = [entry.name for entry in own_entries(path)]
        frames = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        if not frames:
            raise VideoError(
                f"{path}: no frames (png, jpg) in this folder, but {len(names)} other entries"
            )
        self._names = sorted(frames, key=natural_order)

    @property
    def num_frames(self) -> int:
        return len(self._names)

    @property
    def times(self) -> Sequence[Fraction]:
        return regular_times(self.num_frames, self.frame_rate)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self._read_one(0).shape[:2]
        return height, width

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(0)

    def frames_from(self, first: int) -> Iterator[Frame]:
        return map(self._read_one, range(first, self.num_frames))

    def read(self, frames: Sequence[int]) -> Frames:
        _check_range(self.path, frames, self.num_frames)
        return _stack(self.path, [self._read_one(position) for position in frames])

    def _read_one(self, position: int) -> Frame:
        try:
            return read_image(self.path / self._names[position])
        except UserError as error:
            raise MissingFrame(str(error), position, position - 1) from None


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """Sort key that puts frame10 behind frame9."""
    parts = re.split(r"(\d+)", name)
    return [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]


class _StripReader:
    """Square frames side by side in one image, the layout of the published moving GIFs."""

    def __init__(self, path: Path, frame_rate: Fraction) -> None:
        self.path = path
        self.frame_rate = frame_rate
        width, height = _image_size(path)
        if width % height or width == height:
            raise VideoError(
                f"{path}: not a clip but a single image ({height} x {width}); a strip has square "
                "frames side by side"
            )
        self.num_frames = width // height
        self.size = (height, height)
        self.times = regular_times(self.num_frames, frame_rate)

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(0)

    def frames_from(self, first: int) -> Iterator[Frame]:
        return iter(self._read_all()[first:])

    def read(self, frames: Sequence[int]) -> Frames:
        _check_range(self.path, frames, self.num_frames)
        return self._read_all()[list(frames)]

    def _read_all(self) -> Frames:
        try:
            strip = read_image(self.path)
        except UserError as error:
            raise VideoError(str(error)) from None
        return np.stack(np.split(strip, self.num_frames, axis=1))


def regular_times(num_frames: int, frame_rate: Fraction) -> Sequence[Fraction]:
    """Seconds since the first of frames that are evenly spaced."""
    return [number / frame_rate for number in range(num_frames)]


def _image_size(path: Path) -> tuple[int, int]:
    """(width, height), from the header alone."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, Image.DecompressionBombError):
        raise VideoError(f"{path}: not an image: {describe_contents(path)}") from None


def _check_range(path: Path, frames: Sequence[int], num_frames: int) -> None:
    for frame in frames:
        if not 0 <= frame < num_frames:
            raise VideoError(f"{path}: there is no frame {frame}; it has {num_frames}")


def _stack(path: Path, images: Sequence[Frame]) -> Frames:
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        listed = ", ".join(f"{height} x {width}" for height, width in sizes)
        raise VideoError(f"{path}: its frames differ in size: {listed}")
    return np.stack(images)
