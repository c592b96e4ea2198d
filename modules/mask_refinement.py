"""Mask refinement: reshapes the mask of another figure to the source's figure."""

import torch
from torch import Tensor, nn

from modules.blocks import Hourglass
from modules.geometry import full_precision


class MaskRefinement(nn.Module):
    """The network R: restores the driving mask from a perturbed one, given the source and its mask,
    and so gives it the shape of the source's figure (Perturbed Masks, section 3.2).

    Args:
        width, max_width, num_blocks: sizes of the hourglass, which has no skip connections.
        temperature: temperature of the sigmoid; small values make the mask binary.
    """

    def __init__(self, width: int, max_width: int, num_blocks: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.mask_fix_net = Hourglass(width, 5, max_width, num_blocks, skips=False)
        self.ref = nn.Conv2d(self.mask_fix_net.out_channels, 1, kernel_size=7, padding=3)

    def forward(self, source: Tensor, source_mask: Tensor, perturbed_mask: Tensor) -> Tensor:
        """The refined mask, B x 1 x h x w in [0, 1].

        Args:
            source: B x 3 x h x w in [0, 1], downsampled to the size of the masks.
            source_mask, perturbed_mask: B x 1 x h x w in [0, 1].
        """
        features = self.mask_fix_net(torch.cat((source, source_mask, perturbed_mask), dim=1))
        logits = full_precision(self.ref(features))
        with torch.autocast(source.device.type, enabled=False):
            return torch.sigmoid(logits / self.temperature)
