"""Cut masks: they say where a mixed image shows the real (1) and the generated image (0)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.batch_random import BatchRandom
from modules.geometry import full_precision


def certain_background(background_weight: Tensor, threshold: float) -> Tensor:
    """Mhat_bg, the confident background: 1 where M_bg >= threshold, else 0 (PriorityCut, 3.2)."""
    return (background_weight >= threshold).to(background_weight.dtype)


def foreground_occlusion(background: Tensor, occlusion_map: Tensor) -> Tensor:
    """O_fg = Mhat_bg + (1 - Mhat_bg) * O: background counts as visible (PriorityCut, Eq. 1)."""
    return background + (1 - background) * occlusion_map


@torch.no_grad()
def priority_cut(
    background_weight: Tensor, occlusion_map: Tensor, fraction: Tensor, *, threshold: float = 0.5
) -> Tensor:
    """M_pc: 0 at the most occluded pixels of the foreground, 1 elsewhere (PriorityCut, 3.2).

    In a sample with n foreground pixels exactly ceil(fraction * n) become 0: those with the lowest
    O_fg, and among equal ones the first in reading order. A sample without foreground is all ones.

    Args:
        background_weight: M_bg, B x 1 x h x w in [0, 1]; values from `threshold` up are background.
        occlusion_map: O, of the same shape; 1 = visible, 0 = fully occluded.
        fraction: k, of shape B in [0, 1].

    Returns:
        B x 1 x h x w of zeros and ones, computed without waiting for the device.
    """
    background = certain_background(background_weight, threshold)
    occlusion = foreground_occlusion(background, occlusion_map).flatten(1)
    is_background = background.flatten(1) > 0
    fraction = full_precision(fraction)
    # .3 in float32 is a little more than .3: without this factor 31 of 100 pixels would be cut.
    below = 1 - 2 * torch.finfo(fraction.dtype).eps
    num_cut = (fraction * (~is_background).sum(dim=1) * below).ceil()
    # Background pixels come last: even fully visible foreground pixels are cut before them.
    order = occlusion.masked_fill(is_background, torch.inf).argsort(dim=1, stable=True)
    ranks = torch.arange(order.shape[1], device=order.device)
    kept = (ranks >= num_cut[:, None]).to(occlusion_map.dtype)
    return torch.ones_like(kept).scatter_(1, order, kept).view_as(occlusion_map)


@torch.no_grad()
def rectangle_cut(
    background_weight: Tensor,
    occlusion_map: Tensor,
    fraction: Tensor,
    *,
    random: BatchRandom,
) -> Tensor:
    """Vanilla CutMix, as in the U-Net GAN: a box of zeros in ones or, for half of the samples, a
    box of ones in zeros (Yun et al., 2019, section 3.1; Schönfeld et al., 2020, published code).

    The box has the image's proportions and `fraction` of its area. Its centre is drawn uniformly
    from the image, and the box is cropped at the border. So every pixel is generated with
    probability 1/2. The arguments are those of `priority_cut`, so that the two can be exchanged;
    only the size of the maps is used.

    Args:
        background_weight, occlusion_map: B x 1 x h x w.
        fraction: share of the area, of shape B in [0, 1].
        random: source of the centre and of the choice of zeros or ones; on the device of the maps.
    """
    batch, _, height, width = occlusion_map.shape
    sides = fraction.sqrt()
    vertical, horizontal, exchange = random.uniform(batch, 3).unbind(1)

    def inside(size: int, place: Tensor) -> Tensor:
        """Whether each of `size` rows or columns is in the box, B x size."""
        half = (sides * size).floor().div(2).floor()  # as published: the sides are even
        centre = (place * size).floor()
        positions = torch.arange(size, device=fraction.device)
        start, end = (centre - half)[:, None], (centre + half)[:, None]
        return (positions >= start) & (positions < end)

    rows, columns = inside(height, vertical), inside(width, horizontal)
    box = rows[:, None, :, None] & columns[:, None, None, :]
    return (box == (exchange < 0.5)[:, None, None, None]).to(occlusion_map.dtype)


def resize_cut(cut_mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `cut_mask` to (height, width); nearest pixel, so that it stays 0 or 1."""
    return F.interpolate(cut_mask, size, mode="nearest-exact")


def mix(cut_mask: Tensor, real: Tensor, generated: Tensor) -> Tensor:
    """M * real + (1 - M) * generated, of images or of logits (PriorityCut, Eq. 2)."""
    return cut_mask * real + (1 - cut_mask) * generated
