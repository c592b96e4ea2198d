"""VGG features for the perceptual loss (Simonyan and Zisserman, 2014)."""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVS_PER_BLOCK = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def relu_layers(network: str) -> list[str]:
    """Names of the ReLU outputs of `network` in order: relu1_1, relu1_2, relu2_1, ..."""
    return [
        f"relu{block}_{conv}"
        for block, count in enumerate(CONVS_PER_BLOCK[network], start=1)
        for conv in range(1, count + 1)
    ]


class VGGFeatures(nn.Module):
    """A frozen VGG network that returns ReLU outputs by name.

    It has only the layers down to the deepest one of `layers`. The tensors in `convs` are named as
    in torchvision's `features` (0.weight, 0.bias, 2.weight, ...).

    Args:
        network: vgg16 or vgg19.
        layers: names of the ReLU outputs to return, such as relu2_1.
        width: channels of the first block (published: 64); they double up to 8 x width.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: str, layers: Collection[str], width: int = 64) -> None:
        super().__init__()
        names = relu_layers(network)
        deepest = max((names.index(layer) for layer in layers), default=-1)  # -1: no layers at all
        self.layers = frozenset(layers)
        self.convs = nn.ModuleDict()
        self.plan: list[tuple[str, str, bool]] = []  # (conv, relu, pool before it)
        index, in_channels, previous_block = 0, 3, 1
        for name in names[: deepest + 1]:
            block = int(name[4])
            pool = block != previous_block
            index += pool  # torchvision numbers pools and ReLUs too
            out_channels = min(8, 2 ** (block - 1)) * width
            self.convs[str(index)] = nn.Conv2d(in_channels, out_channels, 3, padding=1)
            self.plan.append((str(index), name, pool))
            index, in_channels, previous_block = index + 2, out_channels, block
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Tensor, layers: Collection[str] | None = None) -> dict[str, Tensor]:
        """Features of `image`, B x 3 x H x W in [0, 1], by layer name.

        Args:
            layers: compute only these layers; None: all layers of the constructor.
        """
        wanted = self.layers if layers is None else self.layers.intersection(layers)
        x = (image - self.mean) / self.std
        features: dict[str, Tensor] = {}
        for conv, name, pool in self.plan:
            if len(features) == len(wanted):
                break
            if pool:
                x = F.max_pool2d(x, 2)
            x = F.relu(self.convs[conv](x))
            if name in wanted:
                features[name] = x
        return features
