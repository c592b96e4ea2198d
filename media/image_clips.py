"""Readers of clips made of image files: a folder of frames, or a strip of frames in one image."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.limits import LIMITS, Limits
from media.clip_checks import check_num_frames, check_range, stack_frames
from media.container import MissingFrame, VideoError
from media.folder_summary import describe_left_out
from media.frame_folder import stated_frame_rate
from media.frames import Frame, Frames
from media.images import IMAGE_SUFFIXES, read_image
from media.system_files import partition, user_entries
from media.watched import picture_facts

STRIP_SUFFIX = ".png"


class FolderReader:
    """A VideoReader of a folder in which each frame is an image file, in natural order."""

    uneven_times = None

    def __init__(self, path: Path, frame_rate: Fraction, limits: Limits = LIMITS) -> None:
        self.path = path
        self.frame_rate = stated_frame_rate(path) or frame_rate
        self._limits = limits
        frames, others = partition(
            user_entries(path), lambda entry: entry.suffix.lower() in IMAGE_SUFFIXES
        )
        if not frames:
            raise VideoError(
                f"{path}: no frames (png, jpg) in this folder, but {len(others)} other entries"
            )
        check_num_frames(path, len(frames))
        # Joined to one text, which takes a fifth of the memory: a reader is kept for every clip.
        self._names = "/".join(sorted((frame.name for frame in frames), key=natural_order))
        self.num_frames = len(frames)
        self.remarks: Sequence[str] = describe_left_out(others)

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
        check_range(self.path, frames, self.num_frames)
        return stack_frames(self.path, [self._read_one(position) for position in frames])

    def _read_one(self, position: int) -> Frame:
        try:
            return read_image(self.path / self._names.split("/")[position], self._limits)
        except UserError as error:
            raise MissingFrame(str(error), position, position - 1) from None


class StripReader:
    """A VideoReader of square frames side by side in one image, as in the published MGif data."""

    uneven_times = None
    remarks: Sequence[str] = ()

    def __init__(self, path: Path, frame_rate: Fraction, limits: Limits = LIMITS) -> None:
        self.path = path
        self.frame_rate = frame_rate
        self._limits = limits
        try:
            height, width = picture_facts(path, limits).size
        except UserError as error:
            raise VideoError(str(error)) from None
        if width % height or width == height:
            raise VideoError(
                f"{path}: not a clip but a single image ({height} x {width}); a strip has square "
                "frames side by side"
            )
        self.num_frames = width // height
        check_num_frames(path, self.num_frames)
        self.size = (height, height)

    @property
    def times(self) -> Sequence[Fraction]:
        return regular_times(self.num_frames, self.frame_rate)

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(0)

    def frames_from(self, first: int) -> Iterator[Frame]:
        strip = self._read_strip()
        return (self._cut(strip, number) for number in range(first, self.num_frames))

    def read(self, frames: Sequence[int]) -> Frames:
        check_range(self.path, frames, self.num_frames)
        strip = self._read_strip()
        return np.stack([self._cut(strip, number) for number in frames])

    def _cut(self, strip: Frame, number: int) -> Frame:
        side = len(strip)
        return np.ascontiguousarray(strip[:, number * side : (number + 1) * side])

    def _read_strip(self) -> Frame:
        try:
            return read_image(self.path, self._limits)
        except UserError as error:
            raise VideoError(str(error)) from None


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """Sort key that puts frame10 behind frame9."""
    parts = re.split(r"(\d+)", name)
    return [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]


def regular_times(num_frames: int, frame_rate: Fraction) -> Sequence[Fraction]:
    """Times of evenly spaced frames, in seconds since the first."""
    return [number / frame_rate for number in range(num_frames)]
