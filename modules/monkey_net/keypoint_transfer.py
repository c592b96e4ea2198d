"""Which of Monkey-Net's keypoints move the source: the driving ones, or their change."""

import torch
from torch import Tensor

from modules.geometry import inverse_2x2
from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import relative_keypoints

_SMALLEST_VARIANCE = 1e-6  # in place of eigenvalues that are none of a covariance; as published
_SMALLEST_RATIO = 1e-6  # of the eigenvalues; float32 has a precision of 6e-8


def transferred_keypoints(
    source: Keypoints,
    driving: Keypoints,
    reference: Keypoints,
    scale: Tensor | float = 1.0,
    *,
    relative_covariance: bool = False,
) -> Keypoints:
    """The source's keypoints moved as the driving ones moved since the reference frame:
    p_S + scale * (p_D - p_D0), with the covariance of the driving frame (Monkey-Net, section 3.6;
    there the reference D0 is the first driving frame).

    `source` and `reference` may have batch 1; the result has the batch of `driving`.

    Args:
        scale: `movement_scale` of source and reference, or 1.
        relative_covariance: the covariance of the source, changed as that of the driving frames
            changed (`relative_covariances`).
    """
    covariance = driving.covariance
    if relative_covariance:
        assert source.covariance is not None, "only Monkey-Net's detector gives a covariance"
        assert driving.covariance is not None
        assert reference.covariance is not None
        covariance = relative_covariances(
            source.covariance, driving.covariance, reference.covariance
        )
    return Keypoints(relative_keypoints(source, driving, reference, scale).value, None, covariance)


def relative_covariances(source: Tensor, driving: Tensor, reference: Tensor) -> Tensor:
    """A = V_D V_D0^-1 V_S, made a covariance: (A + A^T) / 2, of which eigenvalues <= 0 become 1e-6.

    All are ... x 2 x 2.
    """
    with torch.autocast(source.device.type, enabled=False):  # it would round the products to bf16
        change = driving @ inverse_2x2(reference, _SMALLEST_VARIANCE**2) @ source
        values, vectors = torch.linalg.eigh((change + change.mT) / 2)  # the larger one last
        values = torch.where(values <= 0, _SMALLEST_VARIANCE, values)
        # A matrix that is flatter still is singular, or worse, once its elements are rounded to
        # float32, and its heatmap would be infinite.
        values = values.maximum(_SMALLEST_RATIO * values[..., 1:])
        return vectors * values.unsqueeze(-2) @ vectors.mT


def clipped_keypoints(keypoints: Keypoints) -> Keypoints:
    """`keypoints`, those outside of the frame moved to its border, at -1 or 1."""
    return keypoints._replace(value=keypoints.value.clamp(-1, 1))
