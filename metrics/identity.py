"""Identity metrics: distances between identity embeddings of predicted and true frames.

Embeddings are N x D. A frame without a face has a row of NaN, and its distance is NaN.
"""

import torch
from torch import Tensor


def aed(prediction: Tensor, target: Tensor) -> Tensor:
    """Euclidean distance, which the name AED stands for: ||prediction - target||, N."""
    return torch.linalg.vector_norm(prediction - target, dim=-1)


def aed_squared(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance, which FOMM's published script calls AED: ||prediction - target||^2, N."""
    return (prediction - target).square().sum(dim=-1)
