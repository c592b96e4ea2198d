"""Whose keypoints move the source: the driving frame's own, or their change put on the source."""

import numpy as np
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from modules.geometry import inverse_2x2
from modules.keypoint_detector import Keypoints


def relative_keypoints(
    source: Keypoints, driving: Keypoints, first_driving: Keypoints, scale: Tensor | float = 1.0
) -> Keypoints:
    """The source's keypoints moved as the driving ones moved since the first driving frame.

    p_S + scale * (p_D - p_D0) and J_D J_D0^-1 J_S (FOMM, section 3.4). `source` and
    `first_driving` may have batch 1; the result has the batch of `driving`.
    """
    value = source.value + scale * (driving.value - first_driving.value)
    if source.jacobian is None or driving.jacobian is None or first_driving.jacobian is None:
        return Keypoints(value, None)
    change = driving.jacobian @ inverse_2x2(first_driving.jacobian)
    return Keypoints(value, change @ source.jacobian)


def movement_scale(source: Keypoints, first_driving: Keypoints) -> float:
    """sqrt of the ratio of the keypoints' convex-hull areas, source over first driving frame.

    A figure twice as large in the source moves twice as far. Keypoints of one frame each (batch 1).
    Fewer than 3 keypoints, or all on a line, have no hull: then the scale is 1.
    """
    try:
        source_area, driving_area = (
            ConvexHull(keypoints.value[0].double().cpu().numpy()).volume  # in 2-D the area
            for keypoints in (source, first_driving)
        )
    except (QhullError, ValueError):
        return 1.0
    return float(np.sqrt(source_area / driving_area))


def expand_keypoints(keypoints: Keypoints, batch: int) -> Keypoints:
    """Keypoints of one frame, repeated as a view for `batch` frames."""
    jacobian = keypoints.jacobian
    return Keypoints(
        keypoints.value.expand(batch, -1, -1),
        None if jacobian is None else jacobian.expand(batch, -1, -1, -1),
    )


def first_keypoints(keypoints: Keypoints) -> Keypoints:
    """Keypoints of the first frame of a batch, as a batch of 1."""
    jacobian = keypoints.jacobian
    return Keypoints(keypoints.value[:1], None if jacobian is None else jacobian[:1])
