"""Keypoints that a detector finds in predicted frames against those that it finds in true ones.

Keypoints are N x K x 2 (frames, keypoints, x and y in pixels); one that was not found is NaN.
"""

import torch
from torch import Tensor


def akd(prediction: Tensor, target: Tensor) -> Tensor:
    """Average keypoint distance as published: mean|difference| over keypoints and both
    coordinates, in pixels: N.

    Keypoints missing in one of the two are left out; NaN for a frame that has none in common.
    """
    return (prediction - target).abs().mean(dim=-1).nanmean(dim=-1)


def akd_euclidean(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean Euclidean distance of the keypoints, in pixels: N; √2 to 2 times `akd`.

    Keypoints missing in one of the two are left out; NaN for a frame that has none in common.
    """
    return torch.linalg.vector_norm(prediction - target, dim=-1).nanmean(dim=-1)


def mkr(prediction: Tensor, target: Tensor) -> Tensor:
    """Missing keypoint rate: share of the truth's keypoints that the prediction misses, N.

    NaN for a frame whose truth has none.
    """
    present = _found(target)
    missed = present & ~_found(prediction)
    return missed.sum(dim=-1) / present.sum(dim=-1)


def _found(keypoints: Tensor) -> Tensor:
    """N x K bool."""
    return ~keypoints.isnan().any(dim=-1)
