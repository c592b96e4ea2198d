"""Keypoint metrics: compare the keypoints that a detector finds in predicted and in true frames.

Keypoints are N x K x 2 (frames, keypoints, x and y in pixels); NaN where one was not found.
"""

import torch
from torch import Tensor


def akd(prediction: Tensor, target: Tensor) -> Tensor:
    """Average keypoint distance (AKD) as published: mean|difference| over keypoints and both
    coordinates, in pixels: N.

    Keypoints that are missing in one of the frames are left out; NaN if none are left.
    """
    return (prediction - target).abs().mean(dim=-1).nanmean(dim=-1)


def akd_euclidean(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean Euclidean distance of the keypoints, in pixels: N; √2 to 2 times `akd`.

    Keypoints that are missing in one of the frames are left out; NaN if none are left.
    """
    return torch.linalg.vector_norm(prediction - target, dim=-1).nanmean(dim=-1)


def mkr(prediction: Tensor, target: Tensor) -> Tensor:
    """Missing keypoint rate (MKR): share of the true frame's keypoints that the predicted frame
    lacks, N. NaN if the true frame has none.
    """
    present = _found(target)
    missed = present & ~_found(prediction)
    return missed.sum(dim=-1) / present.sum(dim=-1)


def _found(keypoints: Tensor) -> Tensor:
    """Which keypoints were found: N x K bool."""
    return ~keypoints.isnan().any(dim=-1)
