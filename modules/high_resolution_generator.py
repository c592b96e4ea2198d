"""High-resolution generator: refines a low-resolution prediction with the source's detail."""

import torch
from torch import Tensor, nn

from modules.blocks import Hourglass
from modules.geometry import full_precision


class HighResolutionGenerator(nn.Module):
    """The network H (Perturbed Masks, section 3.3) and, with other inputs, BGRefine.

    Args:
        in_channels: number of channels of all input maps together.
        width, max_width, num_blocks: sizes of the hourglass, which has skip connections.
        num_shown: so many of the last maps are pictures of 3 channels that the result may show as
            they are: it is a mean of them and of a painted picture, with weights for each pixel.
            0, as published: all is painted.
    """

    def __init__(
        self, in_channels: int, width: int, max_width: int, num_blocks: int, num_shown: int = 0
    ) -> None:
        super().__init__()
        self.num_shown = num_shown
        self.hourglass = Hourglass(width, in_channels, max_width, num_blocks)
        channels = 3 if num_shown == 0 else 3 + 1 + num_shown
        self.final_hourglass = nn.Conv2d(
            self.hourglass.out_channels, channels, kernel_size=7, padding=3
        )

    def forward(self, *maps: Tensor) -> Tensor:
        """Compute a picture, B x 3 x H x W in [0, 1], from `maps`, B x c x H x W each, in order."""
        features = self.hourglass(torch.cat(maps, dim=1))
        logits = full_precision(self.final_hourglass(features))
        painted = torch.sigmoid(logits[:, :3])
        if self.num_shown == 0:
            return painted
        with torch.autocast(logits.device.type, enabled=False):
            pictures = torch.stack((painted, *map(full_precision, maps[-self.num_shown :])), dim=1)
            weights = logits[:, 3:].softmax(dim=1).unsqueeze(2)
            return (weights * pictures).sum(dim=1)
