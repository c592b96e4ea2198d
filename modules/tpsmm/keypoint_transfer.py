"""Whose keypoints move the source: the three modes of TPSMM."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import expand_keypoints, movement_scale, relative_keypoints
from modules.tpsmm.avd import AVDNetwork

TransferMode = Literal["absolute", "relative", "avd"]
# From driving keypoints, of any batch, to those that the source is moved to.
Transfer = Callable[[Keypoints], Keypoints]


def keypoint_transfer(
    mode: TransferMode, source: Keypoints, reference: Keypoints, avd: AVDNetwork | None
) -> Transfer:
    """How driving keypoints become those that the source is moved to.

    `absolute` (standard in the paper): as they are. `relative`: p_S + s (p_D - p_D0), where s is
    always the root of the ratio of the hulls' areas. `avd`: the driving pose on the source's
    identity.

    Args:
        source: keypoints of the source (batch 1).
        reference: those of the driving frame that relative motion starts from (batch 1).
        avd: for the mode `avd`.

    Raises:
        ValueError: there is no network for the mode `avd`.
    """
    if mode == "absolute":
        return lambda driving: driving
    if mode == "relative":
        scale = movement_scale(source, reference)
        return partial(relative_keypoints, source, reference=reference, scale=scale)
    if avd is None:
        raise ValueError("motion avd needs an AVD network, and the model was trained without one")
    network = avd
    return lambda driving: network(expand_keypoints(source, len(driving.value)), driving)
