"""The affine motion of the background between two frames, such as that of a camera."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.tpsmm.resnet import coordinate_resnet


class BackgroundPredictor(nn.Module):
    """ResNet-18 of both frames to an affine motion (TPSMM, section on TPS motion estimation)."""

    def __init__(self) -> None:
        super().__init__()
        self.bg_encoder = coordinate_resnet(6, 6)
        # Start from the identity: a background that stands still.
        nn.init.zeros_(self.bg_encoder.fc.weight)
        with torch.no_grad():
            self.bg_encoder.fc.bias.copy_(torch.eye(2, 3).flatten())

    def forward(self, source: Tensor, driving: Tensor) -> Tensor:
        """A of both frames, B x 3 x H x W in [0, 1]: B x 3 x 3 with the last row (0, 0, 1).

        A (x, y, 1) is where in the source the background at (x, y) of the driving frame comes from.
        """
        affine = self.bg_encoder(torch.cat((source, driving), dim=1)).unflatten(1, (2, 3))
        last = F.pad(affine.new_ones(1, 1, 1), (2, 0)).expand(affine.shape[0], -1, -1)
        return torch.cat((affine, last), dim=1)
