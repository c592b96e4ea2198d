"""Inputs of an animation: files and frames from the user, or test clips of the training data.

Also brings pictures to the model's size.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain, repeat, starmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checkpoints.checkpoint import Checkpoint
from common.errors import UserError
from common.limits import LIMITS, Limits
from common.safe_paths import exists
from configs.schema import DataConfig
from datasets.build import build_source
from datasets.source import ClipSource
from media.backgrounds import BackgroundEnd, open_background, parse_color, still_background
from media.container import DEFAULT_FRAME_RATE
from media.crops import Box, centre_box, with_aspect
from media.frames import Frame
from media.images import fit_frames, read_image
from media.timing import Clock, Times
from media.video import VideoReader, open_clip

SOURCE, TRANSPARENT = "source", "transparent"  # values of --background that are not file names

Picture = str | Path | Frame
Pictures = list[Picture] | tuple[Picture, ...]
DrivingFrames = str | Path | VideoReader | Iterable[Frame]


class Driving(NamedTuple):
    """The driving frames, of any size.

    frame_rate: frames per second; the average if frames are not evenly spaced.
    num_frames: number of frames; None for an iterator, which can be read only once.
    name: name for messages.
    times: times of frames that are not evenly spaced, else None; see `media.timing`.
    """

    frames: Iterable[Frame]
    frame_rate: Fraction
    num_frames: int | None
    name: str
    times: Times | None = None

    def fitted(self, fit: Callable[[int, Frame], Frame]) -> "Driving":
        """The same frames, each changed by `fit`, a function of its position and the frame."""
        return self._replace(frames=FittedFrames(self.frames, fit))

    def require_repeatable(self, option: str) -> None:
        """Raise UserError where the frames cannot be read a second time."""
        if self.num_frames is None:
            raise UserError(
                f"{option} reads the driving frames twice, which an iterator does not allow; give "
                "a list, an array or a file"
            )

    def first(self) -> tuple[Frame, "Driving"]:
        """The first frame, and a Driving that still begins with it."""
        iterator = iter(self.frames)
        frame = next(iterator, None)
        if frame is None:
            raise UserError(f"{self.name}: there are no driving frames")
        if self.num_frames is not None:
            return frame, self
        return frame, self._replace(frames=chain((frame,), iterator))


def open_driving(frames: DrivingFrames, limits: Limits = LIMITS) -> Driving:
    """Open a file, a reader, a list or an array of frames, or an iterator over frames."""
    if isinstance(frames, str | Path):
        frames = open_clip(frames, limits=limits)
    if isinstance(frames, VideoReader):
        name = str(frames.path)
        return Driving(frames, frames.frame_rate, frames.num_frames, name, frames.uneven_times)
    num_frames = len(frames) if isinstance(frames, list | tuple | np.ndarray) else None
    name = "driving frames"
    return Driving(frames, DEFAULT_FRAME_RATE, num_frames, name).fitted(
        lambda _, frame: require_picture(frame, name)
    )


def open_source(source: Picture, limits: Limits = LIMITS) -> tuple[Frame, str]:
    """Read the source. Returns it, uint8 H x W x 3, and its name for messages."""
    if isinstance(source, str | Path):
        return read_image(source, limits), str(source)
    return require_picture(source, "source"), "source"


def require_picture(array: Frame, name: str) -> Frame:
    """Return `array`; UserError if it is not uint8 H x W x 3. `name` is used in the message."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        shape = " x ".join(map(str, array.shape))
        raise UserError(
            f"{name}: an array of {array.dtype}, {shape}; give uint8, height x width x 3"
        )
    return array


def open_backgrounds(
    background: Picture,
    source: Frame,
    driving: Driving,
    data: DataConfig,
    end: BackgroundEnd | None,
    limits: Limits = LIMITS,
) -> tuple[Iterable[Frame] | None, list[str]]:
    """Open the background.

    Args:
        source: the source at the model's size, which is the background if that is `source`.
        driving: the driving frames, whose rate or times a background clip follows.
        end: what follows the last frame of a background clip; None: the default.

    Returns:
        A background frame for each driving frame, None for `transparent`; and notes for the user.

    Raises:
        UserError: it cannot be read, or `end` is given although it is not a clip.
    """
    frames: Iterable[Frame] | None
    notes: list[str] = []
    is_clip = False
    if isinstance(background, np.ndarray):
        picture = require_picture(background, "background")
        frames = still_background(picture, data.size, data.fit)
    elif is_transparent(background):
        frames = None
    elif is_source(background):
        frames = repeat(source)
    else:
        text = str(background)
        clock = Clock(driving.frame_rate, driving.times)
        opened = open_background(text, data.size, data.fit, clock, end or "loop", limits)
        if is_file_name(text):
            notes = describe_fit(text, opened.original_size, data)
        elif not text.startswith("#") and exists(Path(text)):
            notes = [f"--background {text}: taken for the colour; for the file write ./{text}"]
        frames, is_clip = opened, not opened.is_still
    if end is not None and not is_clip:
        raise UserError(f"--background-end {end}: is for a clip; leave it out")
    return frames, notes


class TestClips(NamedTuple):
    """Inputs taken from test clips.

    source: the first frame of the second clip.
    driving: the first clip.
    background: the first frame of the third clip.

    With fewer than three clips, clip i is the one at i modulo their number.
    """

    source: Frame
    driving: Driving
    background: Frame


def open_test_clips(saved: Checkpoint, max_pixels: int | None = None) -> TestClips:
    """Open test clips of the data that the checkpoint was trained on.

    The limit `max_pixels` in the checkpoint's config is ignored, since the file may not be trusted.
    """
    data = saved.config.data.model_copy(update={"max_pixels": max_pixels})
    clips = build_source(data, "test")
    source, third = (clips.read(index % len(clips.clips), [0])[0] for index in (1, 2))
    driving = Driving(
        _Streamed(clips, 0), clips.frame_rate(0), clips.num_frames(0), clips.clips[0].name
    )
    return TestClips(source, driving, third)


def is_transparent(background: Picture | None) -> bool:
    """Whether `background` is the keyword `transparent`."""
    return isinstance(background, str | Path) and str(background) == TRANSPARENT


def is_source(background: Picture | None) -> bool:
    """Whether `background` is the keyword `source`."""
    return isinstance(background, str | Path) and str(background) == SOURCE


class _Streamed:
    """The frames of one clip; every iteration reads them anew."""

    def __init__(self, clips: ClipSource, index: int) -> None:
        self._clips = clips
        self._index = index

    def __iter__(self) -> Iterator[Frame]:
        return self._clips.stream(self._index)


class FittedFrames:
    """Frames, each changed by `fit`, a function of its position and the frame. Every iteration
    starts anew if that of `frames` does.
    """

    def __init__(self, frames: Iterable[Frame], fit: Callable[[int, Frame], Frame]) -> None:
        self._frames = frames
        self._fit = fit

    def __iter__(self) -> Iterator[Frame]:
        return starmap(self._fit, enumerate(self._frames))


def fit_whole(frame: Frame, data: DataConfig) -> Frame:
    """Bring the whole picture to the model's size, in the way `data.fit` says."""
    return fit_frames(frame[None], data.size, data.fit)[0]


def whole_box(picture: Frame, data: DataConfig) -> Box:
    """The part of the picture that `fit_whole` shows; with `pad` it is larger than the picture."""
    height, width = picture.shape[:2]
    if data.fit == "crop":
        return centre_box((height, width), data.size)
    return with_aspect(Box(0, 0, width, height), data.size)


def describe_fit(name: str, shape: tuple[int, ...], data: DataConfig) -> list[str]:
    """A note on how a picture of `shape` (height, width) is fitted; empty if it is only scaled."""
    if shape[0] * data.size[1] == shape[1] * data.size[0]:
        return []
    how = {"crop": "cropped at the centre", "pad": "padded with black"}[data.fit]
    return [f"{name}: {shape[1]} x {shape[0]} pixels, {how} to the shape of the model"]


def is_file_name(background: str) -> bool:
    """Whether a value of --background is a file, not a keyword or a colour."""
    return background not in (SOURCE, TRANSPARENT) and parse_color(background) is None
