"""Perturbation of the foreground mask, so that it cannot tell whose outline it is.

All scaling is linear and separable, so it takes one small matrix per axis: rows @ mask @ columns^T.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.batch_random import BatchRandom
from modules.geometry import full_precision

_LEVELS = 255  # of an 8-bit mask; the published threshold and noise count in them


class _AxisDraws(NamedTuple):
    """What is drawn for one axis.

    cuts: B x C with C < N, whole pixels in ascending order; a strip starts at a cut.
    strip_scales: B x N, scale of each strip, in order; those behind the last strip go unused.
    scale: B x 1, scale of the whole mask.
    """

    cuts: Tensor
    strip_scales: Tensor
    scale: Tensor


class _Perturbation(NamedTuple):
    """What is drawn for a perturbation.

    columns: along the width: vertical strips scaled horizontally.
    rows: along the height: horizontal strips scaled vertically.
    noise: B x 1 x h x w, counts of levels of 255 with a sign, in the units of the mask.
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
    """P of a mask, B x 1 x h x w in [0, 1] -> the same in float32 (Perturbed Masks).

    The mask is cut into vertical strips, each scaled horizontally in its place and the whole
    vertically; then the same with horizontal strips and the axes exchanged. What a scaled strip
    loses over its borders is cropped, what it lacks is 0. Weak pixels then become 0 and every pixel
    gets noise. Every sample has draws of its own. No gradient passes: the refinement network
    must not shape the mask.

    Args:
        num_strips: strips per axis; fewer where the range of the pivots has too few whole pixels.
        pivots: range of the cuts between strips, inclusive, as fractions of the mask's side.
        scales: range of the scales of a strip and of the whole, 1 = unchanged.
        threshold: values up to this many levels of 255 become 0.
        noise: mean of the Poisson count of levels that is added or subtracted, with equal chance.
        random: on the device of the mask.
    """
    drawn = _draw(foreground_mask, num_strips, pivots, scales, noise, random)
    return _apply(foreground_mask, drawn, threshold)


@torch.no_grad()
def shrink(foreground_mask: Tensor, *, threshold: float, scale: float) -> Tensor:
    """The mask scaled about its centre, as in animation: B x 1 x h x w in [0, 1], in
    float32 or, as it comes, float64.

    It stands in for the perturbation, which only training draws. Zeros come in from outside; no
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
    """The random numbers of `perturb`, on the device of the mask."""
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
    """The draws for an axis of `size` pixels."""
    first = math.ceil(pivots[0] * size)
    num_pixels = math.floor(pivots[1] * size) - first + 1
    # The first entries of a random permutation: distinct, and never more than there are pixels.
    order = random.uniform(batch, num_pixels).argsort(dim=1)
    cuts = first + order[:, : num_strips - 1].sort(dim=1).values
    drawn = random.uniform(batch, num_strips + 1)
    drawn = scales[0] + (scales[1] - scales[0]) * drawn
    return _AxisDraws(cuts, drawn[:, :-1], drawn[:, -1:])


def _apply(foreground_mask: Tensor, drawn: _Perturbation, threshold: float) -> Tensor:
    """The mask perturbed as `drawn`."""
    height, width = foreground_mask.shape[-2:]
    # The first pass scales the strips of columns and all rows, the second the strips of rows and
    # all columns: along the width the strips come first, along the height the whole.
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
    """Values up to `threshold` levels of 255 set to 0."""
    return F.threshold(mask, threshold / _LEVELS, 0)


def _resample(mask: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ mask @ columns^T: B x 1 x h x w, by matrices B x h x h and B x w x w (B may be 1)."""
    # Autocast would round the mask to bf16, whose step near 1 is a level of 255.
    with torch.autocast(mask.device.type, enabled=False):
        rows, columns = rows.to(mask.dtype), columns.to(mask.dtype)
        return rows.unsqueeze(1) @ mask @ columns.mT.unsqueeze(1)


def _strip_scaling(size: int, scales: Tensor, cuts: Tensor) -> Tensor:
    """The matrix that scales every strip of an axis about its own centre, B x size x size.

    Output pixel x of the strip of pixels a .. b - 1 takes the input at c + (x - c) / s, with
    c = (a + b - 1) / 2: bilinear, and nothing from outside the strip.

    Args:
        scales: B x N, of the strips in order.
        cuts: B x C with C < N, ascending: the first pixels of all strips but the first.
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
