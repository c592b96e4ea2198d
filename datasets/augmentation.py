"""Colour jitter on the device: one affine colour map per sample, shared by the frames of a pair."""

import math
from functools import cache

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in YIQ
# Rows: Y, I, Q. The hue turns in the I-Q plane, which leaves the luma alone.
_RGB_TO_YIQ = (_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@cache
def _yiq_matrices(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """RGB to YIQ and back. Kept on the device: a copy in every step would wait for it."""
    to_yiq = torch.tensor(_RGB_TO_YIQ, dtype=torch.float64)
    return to_yiq.to(device, dtype), torch.linalg.inv(to_yiq).to(device, dtype)


def color_matrices(factors: Tensor, order: Tensor, mean: Tensor) -> Tensor:
    """Fold brightness, contrast, saturation and hue into one map `A rgb + b`: B x 3 x 4, [A b].

    The four adjustments are linear in the pixel (contrast also in the mean colour), so their
    composition is one affine map; only the end result is clipped.

    Args:
        factors: B x 4, in the order of the constants above; brightness, contrast and saturation
            multiply (1 = unchanged), hue is a part of the colour circle (0 = unchanged,
            positive from red towards green).
        order: B x 4, the adjustment applied first, second, ...
        mean: B x 3, mean colour before the jitter; contrast pivots about its luma.
    """
    like = factors
    eye = torch.eye(3, device=like.device, dtype=like.dtype)
    to_yiq, to_rgb = _yiq_matrices(like.device, like.dtype)
    luma = to_yiq[0]
    grey = luma.expand(3, 3)  # every channel becomes the luma
    batch = len(factors)
    brightness, contrast, saturation, hue = factors.view(batch, 4, 1, 1).unbind(1)

    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rotation = torch.cat(
        (
            torch.cat((one, zero, zero), -1),
            torch.cat((zero, cos, sin), -1),
            torch.cat((zero, -sin, cos), -1),
        ),
        -2,
    )
    linear = torch.stack(
        (
            brightness * eye,
            contrast * eye,
            saturation * eye + (1 - saturation) * grey,
            to_rgb @ rotation @ to_yiq,
        ),
        dim=1,
    )  # B x 4 adjustments x 3 x 3

    matrix, offset = eye.expand(batch, 3, 3), torch.zeros_like(mean)
    samples = torch.arange(batch, device=like.device)
    for adjustment in order.unbind(1):
        step = linear[samples, adjustment]
        current_luma = (torch.einsum("bij,bj->bi", matrix, mean) + offset) @ luma
        shift = (1 - contrast.view(batch)) * current_luma * (adjustment == CONTRAST)
        matrix = step @ matrix
        offset = torch.einsum("bij,bj->bi", step, offset) + shift.unsqueeze(-1)
    return torch.cat((matrix, offset.unsqueeze(-1)), dim=-1)


def jitter_colors(frames: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Apply one jitter per sample to all its frames, B x N x 3 x H x W in [0, 1].

    The contrast pivot is the mean over the N frames, so that a static background keeps exactly
    the same colours in all of them.
    """
    mean = frames.mean(dim=(1, 3, 4))
    matrices = color_matrices(factors, order, mean)
    jittered = torch.einsum("bij,bnjhw->bnihw", matrices[..., :3], frames)
    return (jittered + matrices[:, None, :, 3, None, None]).clamp(0, 1)
