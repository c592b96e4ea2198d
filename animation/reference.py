"""Finds the reference frame of relative motion: the driving frame that is nearest to the source."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from animation.branch_animators import MotionAnimator, frames_to_tensor, in_batches
from media.frames import Frame
from modules.keypoint_transfer import hull_area

# A larger distance is called far. 95% of the distances between frames of one clip are smaller, for
# puppets and for real heads. Distances between frames of different puppets have two peaks, at 0.1
# for similar figures and at 0.3 for different ones; this value lies between the peaks.
FAR_DISTANCE = 0.2


@dataclass(frozen=True)
class NearestFrame:
    """The driving frame nearest to the source.

    index: its number, from 0.
    frame: the frame, uint8 H x W x 3.
    distance: its distance to the source; see `keypoint_distance`.
    first_distance: distance of the first driving frame.
    num_frames: number of driving frames.
    """

    index: int
    frame: Frame
    distance: float
    first_distance: float
    num_frames: int


def nearest_frame(
    animator: MotionAnimator, source: Frame, driving: Iterable[Frame], batch_size: int = 8
) -> NearestFrame:
    """Find the driving frame with the smallest `keypoint_distance` to `source`.

    If several are equal, it is the first of them.

    It streams `driving` once; memory does not grow with the number of frames. Animating from this
    reference frame then needs only one pass in order: each frame moves the source by its own change
    since the reference frame, which gives the same as going forward and backward from there.

    Args:
        source: uint8 H x W x 3.
        driving: frames, uint8 H x W x 3 each.

    Raises:
        ValueError: there are no driving frames.
        UserError: memory does not suffice for one frame.
    """
    detect = animator.branch.detect
    with torch.inference_mode():
        points = detect(frames_to_tensor(source[None], animator.device)).value[0].cpu()
    nearest: NearestFrame | None = None
    num_frames = 0
    for frames, keypoints in in_batches(detect, driving, batch_size, animator.device):
        for frame, driving_points in zip(frames, keypoints.value.cpu(), strict=True):
            distance = keypoint_distance(points, driving_points)
            if nearest is None or distance < nearest.distance:
                first_distance = distance if nearest is None else nearest.first_distance
                # A copy: otherwise the whole batch would stay in memory.
                nearest = NearestFrame(num_frames, frame.copy(), distance, first_distance, 0)
            num_frames += 1
    if nearest is None:
        raise ValueError("nearest_frame: there are no driving frames")
    return replace(nearest, num_frames=num_frames)


def keypoint_distance(first: Tensor, second: Tensor) -> float:
    """Distance between the poses of two figures, independent of their positions and sizes.

    It is the mean absolute difference over the keypoints and both coordinates, after each set is
    shifted to mean 0 and divided by the square root of its convex hull's area (as FOMM's search for
    the best frame does with landmarks). 0.1 is a tenth of the figure's size. Infinite if one set
    has no hull.

    Args:
        first, second: K x 2.
    """
    areas = hull_area(first), hull_area(second)
    if not all(areas):
        return math.inf
    shapes = [
        (points - points.mean(dim=0)) / math.sqrt(area)
        for points, area in zip((first, second), areas, strict=True)
    ]
    return float((shapes[0] - shapes[1]).abs().mean())


def is_far(distance: float) -> bool:
    """Whether a frame at this distance differs too much from the source to be the reference."""
    return distance > FAR_DISTANCE
