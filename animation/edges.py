"""Colours of a figure at its edge, without those of the background that it was cut out of."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Chosen on puppets with their true masks, and on a plain figure with an edge of three pixels.
# Exponent of the weights in the means over neighbours: those that show nothing but the figure, or
# nothing but the background, count most.
SHARPNESS = 8
LARGEST_RADIUS = 1 / 8  # of the largest square, as a share of the picture's shorter side
COARSE_WEIGHT = 0.02  # of the mean over the next larger square, in that over a smaller one


def clean_edge(frames: Tensor, alpha: Tensor) -> Tensor:
    """Estimate the colours of figures at their see-through edges.

    A pixel there shows `alpha * figure + (1 - alpha) * background`. Laid over a new background with
    the same alpha it would leave a rim of the old one. Both colours are first estimated as means
    over neighbours that show them, and then changed as little as possible (least squares) so that
    they explain the pixel. The means are those of blur fusion (Forte, Approximate Fast Foreground
    Colour Estimation, ICIP 2021), taken over squares from large to small.

    Args:
        frames: B x 3 x H x W in [0, 1].
        alpha: opacity of the figure, B x 1 x H x W in [0, 1].

    Returns:
        B x 3 x H x W in [0, 1]. Pixels with alpha 1 keep their colours to the last bit.
    """
    figure = _neighbours_mean(frames, alpha**SHARPNESS)
    background = _neighbours_mean(frames, (1 - alpha) ** SHARPNESS)
    unexplained = frames - alpha * figure - (1 - alpha) * background
    figure = figure + alpha * unexplained / (alpha.square() + (1 - alpha).square())
    return torch.where(alpha == 1, frames, figure.clamp(0, 1))


def _neighbours_mean(frames: Tensor, weights: Tensor) -> Tensor:
    """Mean of the frames around each pixel, weighted by B x 1 x H x W `weights`.

    It is over the smallest square that has neighbours with a weight: each square adds a little of
    the mean over the next larger one.
    """
    radius = 1
    while 2 * radius <= LARGEST_RADIUS * min(frames.shape[-2:]):
        radius *= 2
    weighted, mean = torch.cat((frames * weights, weights), dim=1), frames
    while radius >= 1:
        near, total = _box_mean(weighted, radius).split((3, 1), dim=1)
        mean = (near + COARSE_WEIGHT * mean) / (total + COARSE_WEIGHT)
        radius //= 2
    return mean


def _box_mean(values: Tensor, radius: int) -> Tensor:
    """Mean over the square around each pixel; pixels beyond the frame count as 0."""
    side = 2 * radius + 1
    columns = F.avg_pool2d(values, (side, 1), stride=1, padding=(radius, 0))
    return F.avg_pool2d(columns, (1, side), stride=1, padding=(0, radius))
