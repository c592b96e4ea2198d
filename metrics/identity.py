"""Embeddings of identity of predicted frames against those of true ones.

Embeddings are N x D, a row of NaN for a frame where nobody was found; its distance is NaN.
"""

import torch
from torch import Tensor


def aed(prediction: Tensor, target: Tensor) -> Tensor:
    """Average Euclidean distance, as it is named: ||prediction - target||, N."""
    return torch.linalg.vector_norm(prediction - target, dim=-1)


def aed_squared(prediction: Tensor, target: Tensor) -> Tensor:
    """What FOMM's published script sums up under the name AED: ||prediction - target||^2, N."""
    return (prediction - target).square().sum(dim=-1)
