"""Checks that the readers of clips share: frame numbers, number of frames, equal sizes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.limits import MAX_FRAMES
from media.container import VideoError
from media.frames import Frame, Frames


def check_range(path: Path, frames: Sequence[int], num_frames: int, what: str = "it") -> None:
    """Raise VideoError if a frame number in `frames` is not from 0 to `num_frames` - 1.

    `what` names in the message what has `num_frames` frames, such as an excerpt of the clip.
    """
    for frame in frames:
        if not 0 <= frame < num_frames:
            raise VideoError(f"{path}: there is no frame {frame}; {what} has {num_frames}")


def check_num_frames(path: Path, num_frames: int) -> None:
    """Raise VideoError if a clip has more than MAX_FRAMES frames."""
    if num_frames > MAX_FRAMES:
        raise VideoError(
            f"{path}: has more than {MAX_FRAMES:,} frames, the most that are read; cut it into "
            "parts"
        )


def stack_frames(path: Path, images: Sequence[Frame]) -> Frames:
    """Stack frames to N x H x W x 3; raise VideoError if their sizes differ."""
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        listed = ", ".join(f"{height} x {width}" for height, width in sizes)
        raise VideoError(f"{path}: its frames differ in size: {listed}")
    return np.stack(images)
