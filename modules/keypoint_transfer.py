"""Relative motion: transfers the movement of the driving keypoints to the source's keypoints."""

import math

from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from modules.geometry import inverse_2x2
from modules.keypoint_detector import Keypoints


def relative_keypoints(
    source: Keypoints, driving: Keypoints, reference: Keypoints, scale: Tensor | float = 1.0
) -> Keypoints:
    """Move the source's keypoints as the driving keypoints have moved since the reference frame.

    Computes p_S + scale * (p_D - p_D0) and J_D J_D0^-1 J_S (FOMM, section 3.4, where the reference
    frame D0 is the first driving frame). `source` and `reference` may have batch 1; the result has
    the batch of `driving`.
    """
    value = source.value + scale * (driving.value - reference.value)
    if source.jacobian is None or driving.jacobian is None or reference.jacobian is None:
        return Keypoints(value, None)
    change = driving.jacobian @ inverse_2x2(reference.jacobian)
    return Keypoints(value, change @ source.jacobian)


def movement_scale(source: Keypoints, reference: Keypoints) -> float:
    """Scale of relative motion: a figure twice as large in the source moves twice as far.

    It is the square root of the ratio of the keypoints' convex-hull areas, source over reference
    frame (batch 1 each), and 1 if one of them has no hull.
    """
    source_area, reference_area = hull_area(source.value[0]), hull_area(reference.value[0])
    if not source_area or not reference_area:
        return 1.0
    return math.sqrt(source_area / reference_area)


def hull_area(points: Tensor) -> float:
    """Area of the convex hull of `points`, K x 2.

    It is 0 if there is no hull: fewer than 3 points, all on a line, or not finite.
    """
    try:
        return float(ConvexHull(points.double().cpu().numpy()).volume)  # in 2-D the area
    except (QhullError, ValueError):
        return 0.0


def expand_keypoints(keypoints: Keypoints, batch: int) -> Keypoints:
    """Repeat the keypoints of one frame for `batch` frames, as views without a copy."""

    def repeat(matrices: Tensor | None) -> Tensor | None:
        return None if matrices is None else matrices.expand(batch, -1, -1, -1)

    return Keypoints(
        keypoints.value.expand(batch, -1, -1),
        repeat(keypoints.jacobian),
        repeat(keypoints.covariance),
    )


def first_keypoints(keypoints: Keypoints) -> Keypoints:
    """Keypoints of the first frame of a batch, as a batch of 1."""

    def first(matrices: Tensor | None) -> Tensor | None:
        return None if matrices is None else matrices[:1]

    return Keypoints(keypoints.value[:1], first(keypoints.jacobian), first(keypoints.covariance))
