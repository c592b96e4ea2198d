"""Identity metrics: distances and similarity of identity embeddings of predicted and true frames.

Embeddings are N x D. A frame without a face has a row of NaN, and its metrics are NaN.
"""

import torch
from torch import Tensor


def aed(prediction: Tensor, target: Tensor) -> Tensor:
    """Euclidean distance, which the name AED stands for: ||prediction - target||, N."""
    return torch.linalg.vector_norm(prediction - target, dim=-1)


def aed_squared(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance, which FOMM's published script calls AED: ||prediction - target||^2, N."""
    return (prediction - target).square().sum(dim=-1)


def csim(prediction: Tensor, target: Tensor) -> Tensor:
    """Cosine similarity, <prediction, target> / (||prediction|| ||target||), from -1 to 1: N.

    NaN for an embedding of length 0, which has no direction. It is the CSIM of Zakharov et al.
    2019, "Few-Shot Adversarial Learning of Realistic Neural Talking Head Models", section 4.
    """
    lengths = [torch.linalg.vector_norm(found, dim=-1) for found in (prediction, target)]
    return ((prediction * target).sum(dim=-1) / (lengths[0] * lengths[1])).clamp(-1, 1)
