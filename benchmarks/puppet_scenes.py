"""Scenes for benchmarks: a puppet to animate, with frames to drive it and the rendered truth."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from animation.background_swap import BackgroundType
from animation.branch_animators import frames_to_tensor
from benchmarks.puppet_scores import Cutout
from datasets.puppets.clips import Puppets
from datasets.puppets.figure import draw_figure
from evaluation.reconstruction import spread
from media.visualization import to_uint8

Driver = Literal["own", "another"]  # driving frames of the source's clip, or of another puppet's
DRIVERS: tuple[Driver, ...] = ("own", "another")
MIN_CLIPS = 3  # for source, driving frames and new background


class Scene(NamedTuple):
    """A source, B driving frames and the truth. Images are in [0, 1]; all are on one device.

    driver: where the driving frames come from.
    source: the source frame, 1 x 3 x H x W.
    source_inside: where the figure is in the source, 1 x 1 x H x W, bool.
    driving: the driving frames, B x 3 x H x W.
    figure: the source's figure in the driving poses.
    old_background, new_background: backgrounds without a figure, 1 x 3 x H x W.
    third_images: the pictures of the new background that the networks get, by type: B x 3 x H x W.
    """

    driver: Driver
    source: Tensor
    source_inside: Tensor
    driving: Tensor
    figure: Cutout
    old_background: Tensor
    new_background: Tensor
    third_images: dict[BackgroundType, Tensor]


def driving_frames(clips: Puppets, num_frames: int) -> list[int]:
    """Numbers of at most `num_frames` frames, evenly spread; the first frame, the source, is not
    among them.
    """
    return spread(clips.num_frames(0), num_frames + 1)[1:]


def build_scene(
    clips: Puppets, index: int, driver: Driver, frames: Sequence[int], device: torch.device
) -> Scene:
    """Build the scene of clip `index`: its puppet is driven by `frames` of its own or of the next
    clip, and the new background is that of the clip after the next.
    """

    def background(clip: int) -> Tensor:
        return to_pictures(clips.background_picture(clip)[None], device)

    num_clips = len(clips.clips)
    driving = {"own": index, "another": (index + 1) % num_clips}[driver]
    third = (index + 2) % num_clips
    new_background = background(third)
    empty = frames_to_tensor(to_uint8(new_background), device)  # rounded to 8 bits, like a file
    return Scene(
        driver=driver,
        source=frames_to_tensor(clips.read(index, [0]), device),
        source_inside=cut_out(clips, index, index, [0], device).inside,
        driving=frames_to_tensor(clips.read(driving, frames), device),
        figure=cut_out(clips, index, driving, frames, device),
        old_background=background(index),
        new_background=new_background,
        third_images={
            "same": frames_to_tensor(clips.read(third, frames), device),
            "other": empty.expand(len(frames), -1, -1, -1),
        },
    )


def cut_out(
    clips: Puppets, index: int, driving: int, frames: Sequence[int], device: torch.device
) -> Cutout:
    """Draw the puppet of clip `index` in the poses of `frames` of clip `driving`."""
    identity = clips.identity(index)
    figures = [
        draw_figure(identity, clips.pose(driving, frame), clips.image_size) for frame in frames
    ]
    return Cutout(
        to_pictures(np.stack([figure.colour for figure in figures]), device),
        to_pictures(np.stack([figure.foreground_mask for figure in figures])[..., None], device),
    )


def to_pictures(arrays: np.ndarray, device: torch.device) -> Tensor:
    """Convert float arrays N x H x W x C to a tensor N x C x H x W on the device."""
    return torch.tensor(arrays).movedim(-1, 1).to(device)
