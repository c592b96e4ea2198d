"""Mask generator: foreground mask of a frame, learned without labels (Perturbed Masks, 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import AntiAliasDownsample, Hourglass
from modules.geometry import full_precision

KERNEL = 7  # side of the last convolution
BORDER = KERNEL // 2  # width of the border that this convolution does not reach, in pixels


class MaskGenerator(nn.Module):
    """The network m: computes the foreground mask of a frame, at the frame's size times `scale`.

    Args:
        width, max_width, num_blocks: sizes of the hourglass.
        scale: factor by which the frame is downsampled first.
        temperature: temperature of the sigmoid; small values make the mask binary.
        skips: skip connections in the hourglass. The published one has none: the mask should say
            where the figure is, not copy edges. With them outlines become sharp.
    """

    def __init__(
        self,
        width: int,
        max_width: int,
        num_blocks: int,
        scale: float,
        temperature: float,
        skips: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.scale = scale
        self.down = AntiAliasDownsample(scale)
        self.predictor = Hourglass(width, 3, max_width, num_blocks, skips=skips)
        # No padding: zeros at the border would give away positions.
        self.ref = nn.Conv2d(self.predictor.out_channels, 1, kernel_size=KERNEL)

    def logits(self, frame: Tensor) -> Tensor:
        """Logits of the mask of `frame`, B x 3 x H x W in [0, 1], divided by the temperature.

        They lack the mask's border of 3 pixels: B x 1 x (h - 6) x (w - 6).
        """
        logits = self.ref(self.predictor(self.down(frame)))
        with torch.autocast(frame.device.type, enabled=False):
            return full_precision(logits) / self.temperature

    def forward(self, frame: Tensor) -> Tensor:
        """Foreground mask of `frame`, B x 3 x H x W in [0, 1]: B x 1 x h x w, 1 = foreground."""
        return mask_from_logits(self.logits(frame))


def mask_from_logits(logits: Tensor) -> Tensor:
    """Compute the mask from `MaskGenerator.logits`: B x 1 x h x w in [0, 1].

    Its border of 3 pixels, which the last convolution does not reach, is background (0).
    """
    with torch.autocast(logits.device.type, enabled=False):
        return F.pad(torch.sigmoid(logits), (BORDER,) * 4)
