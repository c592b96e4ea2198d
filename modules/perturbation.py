"""Perturbation of foreground masks: it hides whose outline a mask shows (Perturbed Masks).

All scaling is linear and separable, so one small matrix per axis does it: rows @ mask @ columns^T.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.batch_random import BatchRandom
from modules.geometry import full_precision

_LEVELS = 255  # levels of an 8-bit mask, the units of the published threshold and noise


class _AxisDraws(NamedTuple):
    """Random numbers for one axis of a perturbation.

    cuts: B x C with C < N, in whole pixels and ascending order; a strip starts at each cut.
    strip_scales: B x N, scales of the strips in order; scales beyond the last strip are not used.
    scale: B x 1, scale of the whole mask.
    """

    cuts: Tensor
    strip_scales: Tensor
    scale: Tensor


class _Perturbation(NamedTuple):
    """Random numbers of a perturbation.

    columns: for the axis along the width: vertical strips, scaled horizontally.
    rows: for the axis along the height: horizontal strips, scaled vertically.
    noise: B x 1 x h x w, added to the mask: signed whole numbers of levels, divided by 255.
    """

    columns: _AxisDraws
    rows: _AxisDraws
    noise: Tensor


@torch.no_grad()
def perturb(
    foreground_mask: Tensor,
    *,
    num_strips: int,
    pivots: tuple[float, float],
    scales: tuple[float, float],
    threshold: float,
    noise: float,
    random: BatchRandom,
) -> Tensor:
    """Perturb masks at random (P): B x 1 x h x w in [0, 1] -> the same shape and range in float32.

    The mask is cut into vertical strips. Each strip is scaled horizontally about its centre, and
    the whole mask vertically; then the same is done with horizontal strips and the axes exchanged.
    A strip is cropped where it outgrows its place, and filled with 0 where it no longer fills it.
    Then weak pixels become 0 and noise is added to every pixel. Each sample gets its own random
    numbers. No gradient passes: the refinement network must not train the mask generator.

    Args:
        num_strips: strips per axis; fewer if the range of the pivots has too few whole pixels.
        pivots: range of the cuts between strips, inclusive, as fractions of the mask's side.
        scales: range of the scales of a strip and of the whole mask, 1 = unchanged.
        threshold: values up to this many levels of 255 become 0.
        noise: mean of a Poisson number of levels, added or subtracted with equal probability.
        random: source of the random numbers, on the device of the mask.
    """
    drawn = _draw(foreground_mask, num_strips, pivots, scales, noise, random)
    return _apply(foreground_mask, drawn, threshold)


@torch.no_grad()
def shrink(foreground_mask: Tensor, *, threshold: float, scale: float) -> Tensor:
    """Scale masks about their centre: B x 1 x h x w in [0, 1]; float64 stays, others give float32.

    Animation uses this in place of the random perturbation. Pixels from outside the mask are 0. No
    gradient passes.

    Args:
        threshold: values up to this many levels of 255 become 0 first.
        scale: 1 = unchanged, smaller than 1 = a smaller foreground.
    """
    mask = _threshold(full_precision(foreground_mask), threshold)
    scales = mask.new_full((1, 1), scale)
    return _resample(mask, _scaling(mask.shape[-2], scales), _scaling(mask.shape[-1], scales))


def _draw(
    foreground_mask: Tensor,
    num_strips: int,
    pivots: tuple[float, float],
    scales: tuple[float, float],
    noise: float,
    random: BatchRandom,
) -> _Perturbation:
    """Draw the random numbers of `perturb`, on the device of the mask."""
    batch, _, height, width = foreground_mask.shape
    columns, rows = (
        _draw_axis(batch, size, num_strips, pivots, scales, random) for size in (width, height)
    )
    counts = random.poisson(noise, *foreground_mask.shape)
    coins = random.uniform(*foreground_mask.shape)
    return _Perturbation(columns, rows, counts.copysign_(coins - 0.5) / _LEVELS)


def _draw_axis(
    batch: int,
    size: int,
    num_strips: int,
    pivots: tuple[float, float],
    scales: tuple[float, float],
    random: BatchRandom,
) -> _AxisDraws:
    """Draw the random numbers for an axis of `size` pixels."""
    first = math.ceil(pivots[0] * size)
    num_pixels = math.floor(pivots[1] * size) - first + 1
    # The first entries of a random permutation are distinct, and never more than the pixels.
    order = random.uniform(batch, num_pixels).argsort(dim=1)
    cuts = first + order[:, : num_strips - 1].sort(dim=1).values
    drawn = random.uniform(batch, num_strips + 1)
    drawn = scales[0] + (scales[1] - scales[0]) * drawn
    return _AxisDraws(cuts, drawn[:, :-1], drawn[:, -1:])


def _apply(foreground_mask: Tensor, drawn: _Perturbation, threshold: float) -> Tensor:
    """Perturb the mask with the random numbers `drawn`."""
    height, width = foreground_mask.shape[-2:]
    # The first pass scales the strips of columns and all rows, the second the strips of rows and
    # all columns. So along the width the strips are scaled first, along the height the whole mask.
    with torch.autocast(foreground_mask.device.type, enabled=False):
        columns = _scaling(width, drawn.columns.scale) @ _strip_scaling(
            width, drawn.columns.strip_scales, drawn.columns.cuts
        )
        rows = _strip_scaling(height, drawn.rows.strip_scales, drawn.rows.cuts) @ _scaling(
            height, drawn.rows.scale
        )
    mask = _threshold(_resample(full_precision(foreground_mask), rows, columns), threshold)
    return (mask + drawn.noise).clamp(0, 1)


def _threshold(mask: Tensor, threshold: float) -> Tensor:
    """Set values up to `threshold` levels of 255 to 0."""
    return F.threshold(mask, threshold / _LEVELS, 0)


def _resample(mask: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ mask @ columns^T for masks B x 1 x h x w; the matrices may have batch 1."""
    # Autocast would round the mask to bf16, whose step near 1 is as large as a level of 255.
    with torch.autocast(mask.device.type, enabled=False):
        rows, columns = rows.to(mask.dtype), columns.to(mask.dtype)
        return rows.unsqueeze(1) @ mask @ columns.mT.unsqueeze(1)


def _strip_scaling(size: int, scales: Tensor, cuts: Tensor) -> Tensor:
    """The matrix that scales every strip of an axis about its own centre, B x size x size.

    Output pixel x of the strip of pixels a .. b - 1 takes the input at c + (x - c) / s, with
    c = (a + b - 1) / 2. Interpolation is bilinear; pixels from outside the strip count as 0.

    Args:
        scales: B x N, scales of the strips in order.
        cuts: B x C with C < N, ascending: the first pixel of each strip but the first.
    """
    pixels = torch.arange(size, dtype=scales.dtype, device=scales.device)
    strip = (pixels >= cuts.unsqueeze(2)).sum(dim=1)
    edges = F.pad(F.pad(cuts, (1, 0), value=0), (0, 1), value=size)
    centre = (edges.gather(1, strip) + edges.gather(1, strip + 1) - 1) / 2
    position = centre + (pixels - centre) / scales.gather(1, strip)
    weights = F.relu(1 - (position.unsqueeze(2) - pixels).abs())
    return weights.masked_fill(strip.unsqueeze(2) != strip.unsqueeze(1), 0)


def _scaling(size: int, scale: Tensor) -> Tensor:
    """The matrix that scales a whole axis about its centre by `scale`, B x 1: B x size x size."""
    no_cuts = torch.empty(len(scale), 0, dtype=torch.long, device=scale.device)
    return _strip_scaling(size, scale, no_cuts)
