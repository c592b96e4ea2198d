"""Foreground mask of a frame, learned without labels (Perturbed Masks, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import AntiAliasDownsample, Hourglass
from modules.geometry import full_precision

KERNEL = 7  # side of the last convolution
BORDER = KERNEL // 2  # pixels that it does not reach


class MaskGenerator(nn.Module):
    """m: a frame to its foreground mask, at the frame's size times `scale`.

    Args:
        width, max_width, num_blocks: of the hourglass, which has no skip connections: the mask is
            to say where the figure is, not to copy edges.
        scale: the network sees the frame downsampled by this.
        temperature: of the sigmoid; small values make the mask binary.
    """

    def __init__(
        self, width: int, max_width: int, num_blocks: int, scale: float, temperature: float
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.down = AntiAliasDownsample(scale)
        self.predictor = Hourglass(width, 3, max_width, num_blocks, skips=False)
        # No padding: a border of zeros would tell the network where it is.
        self.ref = nn.Conv2d(self.predictor.out_channels, 1, kernel_size=KERNEL)

    def logits(self, frame: Tensor) -> Tensor:
        """Of the mask of `frame`, B x 3 x H x W in [0, 1], divided by the temperature, without its
        border: B x 1 x (h - 6) x (w - 6).
        """
        logits = self.ref(self.predictor(self.down(frame)))
        with torch.autocast(frame.device.type, enabled=False):
            return full_precision(logits) / self.temperature

    def forward(self, frame: Tensor) -> Tensor:
        """Mask of `frame`, B x 3 x H x W in [0, 1]: B x 1 x h x w in [0, 1], 1 = foreground."""
        return mask_from_logits(self.logits(frame))


def mask_from_logits(logits: Tensor) -> Tensor:
    """The mask of `MaskGenerator.logits`, B x 1 x h x w in [0, 1].

    A border of 3 pixels, which the last convolution does not reach, is background.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return F.pad(torch.sigmoid(logits), (BORDER,) * 4)
