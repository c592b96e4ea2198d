"""Augments batches on the device: random resize with crop, and colour jitter.

The loader (`datasets/pairs.py`) draws the random numbers of each sample, and the two frames of a
pair share them. No function here makes the host wait for the device.
"""

import torch
from torch import Tensor

from modules.geometry import coordinate_grid, warp

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)  # factors that change nothing, in the order of the constants above

_LUMA = (0.2989, 0.587, 0.114)  # torchvision's, of ITU-R BT.601


def resize_and_crop(frames: Tensor, placement: Tensor) -> Tensor:
    """Resize every sample by a ratio of its own, then crop or pad it to the old size; bilinear.

    Padding repeats the edge of the resized frame.

    Args:
        frames: B x N x 3 x H x W.
        placement: B x 4, whole numbers: height and width of the resized frame, then its row and
            column where the crop begins, which are negative if the frame is padded.
    """
    height, width = frames.shape[-2:]
    placement = placement.to(frames.dtype)

    def sampled_positions(size: int, resized: Tensor, start: Tensor) -> Tensor:
        """Source coordinates of the crop's pixels along a side of `size`: B x size in [-1, 1]."""
        pixels = torch.arange(size, device=frames.device, dtype=frames.dtype)
        # The first clamp repeats the edge of the resized frame as padding. The second one repeats
        # the edge of the frame itself, as every bilinear resize does outside the outermost centres.
        place = torch.minimum((pixels + start[:, None]).clamp(min=0), resized[:, None] - 1)
        source = ((place + 0.5) * (size / resized[:, None]) - 0.5).clamp(0, size - 1)
        return source * (2 / (size - 1)) - 1

    new_height, new_width, top, left = placement.unbind(1)
    rows, columns = (
        sampled_positions(height, new_height, top),
        sampled_positions(width, new_width, left),
    )
    grid = coordinate_grid(height, width, frames).expand(len(frames), -1, -1, -1).clone()
    grid[..., 0], grid[..., 1] = columns[:, None, :], rows[:, :, None]
    return warp(frames.flatten(1, 2), grid).view_as(frames)


def jitter_colors(frames: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Apply a colour jitter per sample to all its frames; it equals torchvision's but for rounding.

    Brightness, contrast, saturation and hue change one after the other, and each result is clipped
    to [0, 1]. Contrast changes about the mean grey that each frame has at that point; hue is turned
    in HSV. The published training of FOMM and Perturbed Masks uses this jitter.

    Args:
        frames: B x N x 3 x H x W in [0, 1].
        factors: B x 4, in the order of the constants above; brightness, contrast and saturation
            multiply (1 = unchanged), hue is a part of the colour circle in [-0.5, 0.5]
            (0 = unchanged, positive from red towards green).
        order: B x 4, the number of the adjustment that is applied first, second, ...
    """
    # Hue, which costs most, is turned once for the whole batch. The other three come before it in
    # some samples and after it in others, and to ask which would make the host wait for the device.
    # So each is applied both before and after, with a neutral factor on the wrong side.
    is_hue = order == HUE
    num_before = is_hue.int().argmax(dim=1)
    others = order.gather(1, is_hue.int().argsort(dim=1, stable=True))[:, :3]  # in their order
    ratios = factors.gather(1, others)
    for i in range(3):
        before = torch.where(i < num_before, ratios[:, i], 1.0)
        frames = _blend(frames, others[:, i], before)
    frames = _turn_hue(frames, factors[:, HUE])
    for i in range(3):
        after = torch.where(i < num_before, 1.0, ratios[:, i])
        frames = _blend(frames, others[:, i], after)
    return frames


def _blend(frames: Tensor, adjustment: Tensor, ratio: Tensor) -> Tensor:
    """Compute ratio * frames + (1 - ratio) * other, clipped to [0, 1].

    `other` depends on `adjustment`, of shape B: black for BRIGHTNESS, the frame's mean grey for
    CONTRAST, its grey pixels for SATURATION.
    """
    red, green, blue = frames.split(1, dim=2)
    grey = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    ratio, adjustment = _per_sample(ratio), _per_sample(adjustment)
    by_mean = (1 - ratio) * (adjustment == CONTRAST) * grey.mean(dim=(-2, -1), keepdim=True)
    by_grey = (1 - ratio) * (adjustment == SATURATION)
    return (frames * ratio).add_(grey.mul_(by_grey).add_(by_mean)).clamp_(0, 1)


def _turn_hue(frames: Tensor, turn: Tensor) -> Tensor:
    """Move the hue of HSV (Smith, 1978) by `turn`, of shape B, in parts of the colour circle.

    The largest and the smallest value in a pixel, and so saturation and value, do not change.
    """
    red, green, blue = frames.split(1, dim=2)
    largest = torch.maximum(red, torch.maximum(green, blue))
    smallest = torch.minimum(red, torch.minimum(green, blue))
    chroma = largest - smallest
    # Hue is in sixths of the circle, from red over green to blue. Grey pixels stay grey.
    scale = 1 / chroma.clamp(min=1e-30)
    by_red, by_green, by_blue = green - blue, blue - red, red - green
    # `lerp` with weights of exactly 0 and 1 selects; on a CPU `where` takes ten times as long.
    hue = torch.lerp(2 + by_green * scale, 4 + by_blue * scale, (largest - green).sign_())
    hue = torch.lerp(by_red * scale, hue, (largest - red).sign_())
    hue = hue.add_(6 * _per_sample(turn))
    hue = hue - 6 * (hue / 6).floor_()
    # How far each channel lies from the smallest to the largest.
    shares = torch.cat(((hue - 3).abs_() - 1, 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_()), dim=2)
    return shares.clamp_(0, 1).mul_(chroma).add_(smallest)


def _per_sample(x: Tensor) -> Tensor:
    """Reshape B numbers to a factor of frames, B x N x 3 x H x W."""
    return x.view(-1, 1, 1, 1, 1)
