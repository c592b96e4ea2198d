"""Whose keypoints move the source: the driving frame's own, or their change put on the source."""

import math

from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from modules.geometry import inverse_2x2
from modules.keypoint_detector import Keypoints


def relative_keypoints(
    source: Keypoints, driving: Keypoints, reference: Keypoints, scale: Tensor | float = 1.0
) -> Keypoints:
    """The source's keypoints moved as the driving ones moved since the reference frame.

    p_S + scale * (p_D - p_D0) and J_D J_D0^-1 J_S (FOMM, section 3.4; there the reference D0 is
    the first driving frame). `source` and `reference` may have batch 1; the result has the batch
    of `driving`.
    """
    value = source.value + scale * (driving.value - reference.value)
    if source.jacobian is None or driving.jacobian is None or reference.jacobian is None:
        return Keypoints(value, None)
    change = driving.jacobian @ inverse_2x2(reference.jacobian)
    return Keypoints(value, change @ source.jacobian)


def movement_scale(source: Keypoints, reference: Keypoints) -> float:
    """sqrt of the ratio of the keypoints' convex-hull areas, source over reference frame.

    A figure twice as large in the source moves twice as far. Keypoints of one frame each (batch 1).
    Without a hull the scale is 1.
    """
    source_area, reference_area = hull_area(source.value[0]), hull_area(reference.value[0])
    if not source_area or not reference_area:
        return 1.0
    return math.sqrt(source_area / reference_area)


def hull_area(points: Tensor) -> float:
    """Area of the convex hull of `points`, K x 2.

    0 where there is none: fewer than 3 points, all on a line, or not finite.
    """
    try:
        return float(ConvexHull(points.double().cpu().numpy()).volume)  # in 2-D the area
    except (QhullError, ValueError):
        return 0.0


def expand_keypoints(keypoints: Keypoints, batch: int) -> Keypoints:
    """Keypoints of one frame, repeated as a view for `batch` frames."""

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
