"""What every reader of clips makes sure of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.limits import MAX_FRAMES
from media.container import VideoError
from media.frames import Frame, Frames


def check_range(path: Path, frames: Sequence[int], num_frames: int, what: str = "it") -> None:
    """Raise VideoError where one of `frames` is not among the `num_frames` of the clip, or of
    `what` is made of it.
    """
    for frame in frames:
        if not 0 <= frame < num_frames:
            raise VideoError(f"{path}: there is no frame {frame}; {what} has {num_frames}")


def check_num_frames(path: Path, num_frames: int) -> None:
    """Raise VideoError where a clip has more frames than any that is read."""
    if num_frames > MAX_FRAMES:
        raise VideoError(
            f"{path}: more than {MAX_FRAMES:,} frames, of which none that is read has more; "
            "cut it into parts"
        )


def stack_frames(path: Path, images: Sequence[Frame]) -> Frames:
    """N x H x W x 3; raises VideoError where the sizes differ."""
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        listed = ", ".join(f"{height} x {width}" for height, width in sizes)
        raise VideoError(f"{path}: its frames differ in size: {listed}")
    return np.stack(images)
