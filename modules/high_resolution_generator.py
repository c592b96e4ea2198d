"""High-resolution generator: refines a low-resolution prediction with the source's detail."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modules.blocks import Hourglass
from modules.geometry import full_precision


class HighResolutionGenerator(nn.Module):
    """The network H (Perturbed Masks, section 3.3) and, with other inputs, BGRefine.

    Args:
        in_channels: number of channels of all input maps together.
        width, max_width, num_blocks: sizes of the hourglass, which has skip connections.
        shown: which of the maps, by their places, are pictures of 3 channels that the result may
            show as they are: it is a mean of them and of a painted picture, with weights for each
            pixel. Empty, as published: all is painted.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        max_width: int,
        num_blocks: int,
        shown: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.shown = tuple(shown)
        self.hourglass = Hourglass(width, in_channels, max_width, num_blocks)
        channels = 3 + 1 + len(self.shown) if self.shown else 3
        self.final_hourglass = nn.Conv2d(
            self.hourglass.out_channels, channels, kernel_size=7, padding=3
        )

    def forward(self, *maps: Tensor) -> Tensor:
        """Compute a picture, B x 3 x H x W in [0, 1], from `maps`, B x c x H x W each, in order."""
        features = self.hourglass(torch.cat(maps, dim=1))
        logits = full_precision(self.final_hourglass(features))
        painted = torch.sigmoid(logits[:, :3])
        if not self.shown:
            return painted
        with torch.autocast(logits.device.type, enabled=False):
            shown = (full_precision(maps[place]) for place in self.shown)
            pictures = torch.stack((painted, *shown), dim=1)
            weights = logits[:, 3:].softmax(dim=1).unsqueeze(2)
            return (weights * pictures).sum(dim=1)
