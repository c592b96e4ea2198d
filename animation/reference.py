"""Which driving frame relative motion should start from: the one nearest to the source."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from animation.branch_animators import MotionAnimator, frames_to_tensor, in_batches
from media.frames import Frame
from modules.keypoint_transfer import hull_area

# Between frames of one clip 95 of 100 distances are smaller (puppets and real heads alike).
# Between frames of different puppets they have two peaks, 0.1 for figures of one kind and 0.3 for
# unlike ones; this is the valley between.
FAR = 0.2


@dataclass(frozen=True)
class Nearest:
    """index: of the driving frame nearest to the source, from 0. frame: itself. distance: its
    distance.

    first_distance: of the first driving frame. num_frames: how many there were.
    """

    index: int
    frame: Frame
    distance: float
    first_distance: float
    num_frames: int


def nearest_frame(
    animator: MotionAnimator, source: Frame, driving: Iterable[Frame], batch_size: int = 8
) -> Nearest:
    """The driving frame whose keypoints lie most like those of `source`; see `keypoint_distance`.

    Streams `driving` once; memory does not grow with its number of frames. Of equals the first.
    As a reference it needs no pass of its own in either direction: each frame, before or after, is
    moved by its own change since the reference, so that one pass in order gives what going forward
    and backward from it would.

    Args:
        source: uint8 H x W x 3.
        driving: frames, uint8 H x W x 3 each.

    Raises:
        ValueError: there are no driving frames.
        UserError: memory does not suffice for one frame.
    """
    detector = animator.branch.keypoint_detector
    with torch.inference_mode():
        points = detector(frames_to_tensor(source[None], animator.device)).value[0].cpu()
    nearest: Nearest | None = None
    num_frames = 0
    for frames, keypoints in in_batches(detector, driving, batch_size, animator.device):
        for frame, driving_points in zip(frames, keypoints.value.cpu(), strict=True):
            distance = keypoint_distance(points, driving_points)
            if nearest is None or distance < nearest.distance:
                first_distance = distance if nearest is None else nearest.first_distance
                # A copy, or the whole batch would stay in memory.
                nearest = Nearest(num_frames, frame.copy(), distance, first_distance, 0)
            num_frames += 1
    if nearest is None:
        raise ValueError("nearest_frame: there are no driving frames")
    return replace(nearest, num_frames=num_frames)


def keypoint_distance(first: Tensor, second: Tensor) -> float:
    """How differently two figures are posed, whatever their place and size.

    Mean absolute difference over the keypoints and both coordinates, each set shifted to mean 0
    and divided by the square root of its convex hull's area (as FOMM's search for the best frame
    does with landmarks): 0.1 is a tenth of the figure's size. Infinite where one has no hull.

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
    """Whether a reference frame at this distance is posed too unlike the source to start from."""
    return distance > FAR
