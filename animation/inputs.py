"""What an animation is made of: files that the user named, or test clips of the training data."""

import argparse
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import repeat
from typing import NamedTuple

from checkpoint import Checkpoint
from config import DataConfig
from datasets.backgrounds import open_background, parse_color
from datasets.build import build_source
from datasets.images import Fit, fit_frames, read_image
from datasets.source import Frame
from datasets.video import open_clip

SOURCE, TRANSPARENT = "source", "transparent"  # backgrounds that are no files


class Inputs(NamedTuple):
    """Frames at the model's size, with the driving clip's frame rate.

    backgrounds: for each driving frame; where they end, the animation ends. None: no picture.
    """

    source: Frame
    driving: Iterable[Frame]
    num_frames: int
    frame_rate: Fraction
    backgrounds: Iterable[Frame] | None


def choose_inputs(arguments: argparse.Namespace, saved: Checkpoint) -> Inputs:
    """The files that the user named; test clips of the training data for what was not named."""
    data = saved.config.data
    if arguments.source is None:
        inputs = demo_inputs(saved)
    else:
        inputs = read_inputs(arguments.source, arguments.driving, data)
    text = arguments.background
    if text is None:
        return inputs
    if text == TRANSPARENT:
        return inputs._replace(backgrounds=None)
    if text == SOURCE:
        return inputs._replace(backgrounds=repeat(inputs.source))
    background = open_background(
        text, data.size, data.fit, inputs.frame_rate, arguments.background_end or "loop"
    )
    if is_file_name(text):
        announce_fit(text, background.original_size, data)
    return inputs._replace(backgrounds=background)


def demo_inputs(saved: Checkpoint) -> Inputs:
    """The first test clip drives the first frame of the second; that of the third is the
    background for a model that has learned to swap. Where there are fewer clips they are counted
    round.
    """
    clips = build_source(saved.config.data, "test")
    source, third = (clips.read(index % len(clips.clips), [0])[0] for index in (1, 2))
    swaps = saved.config.background is not None and "background.start_epoch" not in saved.untrained
    backgrounds = repeat(third) if swaps else None
    return Inputs(source, clips.stream(0), clips.num_frames(0), clips.frame_rate(0), backgrounds)


def read_inputs(source: str, driving: str, data: DataConfig) -> Inputs:
    """An image and a clip, brought to the model's size as `data.fit` says; no background."""
    clip = open_clip(driving)
    image = read_image(source)
    for name, shape in ((source, image.shape[:2]), (driving, clip.size)):
        announce_fit(name, shape, data)
    return Inputs(
        fit_frames(image[None], data.size, data.fit)[0],
        fitted(clip, data.size, data.fit),
        clip.num_frames,
        clip.frame_rate,
        None,
    )


def announce_fit(name: str, shape: tuple[int, ...], data: DataConfig) -> None:
    """Say how a picture of `shape` (height, width) is fitted, unless it is only scaled."""
    if shape[0] * data.size[1] != shape[1] * data.size[0]:
        how = {"crop": "cropped at the centre", "pad": "padded with black"}[data.fit]
        print(f"{name}: {shape[1]} x {shape[0]} pixels, {how} to the shape of the model")


def fitted(frames: Iterable[Frame], size: tuple[int, int], fit: Fit) -> Iterator[Frame]:
    for frame in frames:
        yield fit_frames(frame[None], size, fit)[0]


def is_file_name(background: str) -> bool:
    return background not in (SOURCE, TRANSPARENT) and parse_color(background) is None
