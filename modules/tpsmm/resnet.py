"""ResNet-18 that ends in coordinates."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ResNet, resnet18

from modules.geometry import full_precision


class FullPrecisionLinear(nn.Linear):
    """A linear layer in float32 under autocast: bf16 has 8 bits, not enough for a coordinate."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(full_precision(x), self.weight, self.bias)


def coordinate_resnet(in_channels: int, out_channels: int) -> ResNet:
    """torchvision's ResNet-18 from a random start: B x in_channels x H x W -> B x out_channels.

    Images go in as they are, in [0, 1]: the mean and deviation of ImageNet are not taken out. The
    last layer is a `FullPrecisionLinear`.
    """
    network = resnet18(weights=None)
    if in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    network.fc = FullPrecisionLinear(network.fc.in_features, out_channels)
    return network
