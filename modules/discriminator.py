"""Discriminators: one with a logit for every patch (FOMM+, Monkey-Net), and a U-Net with one for
every pixel.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from modules.blocks import UpConv2d
from modules.geometry import full_precision

_PUBLISHED_AREA = 4 * 4  # pixels of the U-Net's deepest map for images of 256 x 256 and six blocks


class DiscriminatorOutput(NamedTuple):
    """Logits (float32; high means real) and features of a batch of images.

    logits: output of the encoder; one per image, B x 1, or one per patch, B x 1 x h x w.
    pixel_logits: output of the decoder; one per pixel, B x 1 x H x W. None without a decoder.
    encoder_features: outputs of the encoder's blocks, largest map first.
    decoder_features: outputs of the decoder's blocks, smallest map first; empty without a decoder.
    """

    logits: Tensor
    pixel_logits: Tensor | None
    encoder_features: list[Tensor]
    decoder_features: list[Tensor]


def _normalized(layer: nn.Module, use_spectral_norm: bool) -> nn.Module:
    """Add spectral normalization to `layer` if `use_spectral_norm` is set: its weight is divided by
    an estimate of its largest singular value (Miyato et al., 2018).

    Parameter and buffers are named `weight_orig`, `weight_u` and `weight_v`, as in published
    checkpoints.
    """
    return spectral_norm(layer) if use_spectral_norm else layer


class PatchBlock(nn.Module):
    """conv4x4 without padding - InstanceNorm - LeakyReLU - average pool by 2."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: bool,
        pool: bool,
        use_spectral_norm: bool,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel_size=4)
        self.conv = _normalized(conv, use_spectral_norm)
        self.norm = nn.InstanceNorm2d(out_channels, affine=True) if norm else None
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        x = F.leaky_relu(x, 0.2)
        return F.avg_pool2d(x, 2) if self.pool else x


class PatchDiscriminator(nn.Module):
    """One logit for every patch (FOMM+, design after pix2pixHD; Monkey-Net, section 3.5).

    Args:
        in_channels: channels of the image and of the maps that are concatenated to it.
        channels: output channels of the blocks; the first has no norm.
        use_spectral_norm: whether every convolution has spectral normalization.
        pool_last: whether the last block pools too, as in Monkey-Net; in FOMM+ it does not.
    """

    def __init__(
        self,
        in_channels: int,
        channels: list[int],
        use_spectral_norm: bool,
        *,
        pool_last: bool = False,
    ) -> None:
        super().__init__()
        num_pools = len(channels) - (not pool_last)
        self.down_blocks = nn.ModuleList(
            PatchBlock(a, b, norm=i > 0, pool=i < num_pools, use_spectral_norm=use_spectral_norm)
            for i, (a, b) in enumerate(pairwise([in_channels, *channels]))
        )
        self.conv = _normalized(nn.Conv2d(channels[-1], 1, kernel_size=1), use_spectral_norm)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """Discriminate B x in_channels x H x W; the first three channels are an image in [0, 1]."""
        features = []
        for block in self.down_blocks:
            x = block(x)
            features.append(x)
        return DiscriminatorOutput(full_precision(self.conv(x)), None, features, [])

    @staticmethod
    def patch_side(side: int, num_blocks: int, *, pool_last: bool = False) -> int:
        """Side of the map of logits for an image side of `side` pixels: a convolution takes 3
        pixels, and the pool halves the rest.

        Below 1 the image is too small. Without `pool_last` a map of a single logit is too small as
        well: InstanceNorm could not compute statistics in the last block.
        """
        for _ in range(num_blocks - 1):
            side = (side - 3) // 2
        return (side - 3) // 2 if pool_last else side - 3


class ResDownBlock(nn.Module):
    """Two times ReLU - conv3x3, then average pool by 2; the shortcut is conv1x1 and the same pool.

    The first block of a network gets pixels and has no first ReLU.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, first: bool, use_spectral_norm: bool
    ) -> None:
        super().__init__()
        self.first = first
        conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.conv1 = _normalized(conv1, use_spectral_norm)
        self.conv2 = _normalized(conv2, use_spectral_norm)
        self.shortcut = _normalized(shortcut, use_spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        # A 1 x 1 convolution commutes with average pooling; after pooling it costs a quarter.
        return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))


class ResUpBlock(nn.Module):
    """ReLU - nearest x2 - conv3x3 - ReLU - conv3x3; the shortcut is conv1x1 and nearest x2."""

    def __init__(self, in_channels: int, out_channels: int, *, use_spectral_norm: bool) -> None:
        super().__init__()
        conv1 = UpConv2d(in_channels, out_channels)
        conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.conv1 = _normalized(conv1, use_spectral_norm)
        self.conv2 = _normalized(conv2, use_spectral_norm)
        self.shortcut = _normalized(shortcut, use_spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(F.relu(x))))
        return y + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")


class UNetDiscriminator(nn.Module):
    """U-Net with one logit for the image and one for every pixel (Schönfeld et al., 2020, 3.1).

    Each block of the encoder halves the image; after the last one come a sum over space and a
    linear layer. The published sum is over a map of 4 x 4; here it is 16 times the mean, so that
    the logits have the same scale for other sizes and depths. Each block of the decoder doubles the
    size and also gets the encoder's map of that size. There is no batch normalization: the samples
    of a batch do not influence each other. H and W must be multiples of 2^blocks.

    Weights start orthogonal, as published: a random matrix divided by its largest singular value
    would let the signal vanish in a deep network.

    Args:
        in_channels: channels of the image and of the maps that are concatenated to it.
        channels: output channels of the encoder's blocks. The decoder has them in reverse, without
            the deepest and with the first one twice: 1, 2, 4, 8, 8, 16 give 8, 8, 4, 2, 1, 1.
        use_spectral_norm: whether all layers have spectral normalization, except the last 1 x 1
            convolution, which has none as in the published code.
    """

    def __init__(self, in_channels: int, channels: list[int], use_spectral_norm: bool) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(
            ResDownBlock(a, b, first=i == 0, use_spectral_norm=use_spectral_norm)
            for i, (a, b) in enumerate(pairwise([in_channels, *channels]))
        )
        self.linear = _normalized(nn.Linear(channels[-1], 1), use_spectral_norm)
        skips = [0, *reversed(channels[:-1])]  # the deepest map has no skip connection
        widths = [channels[-1], *reversed(channels[:-1]), channels[0]]
        self.up_blocks = nn.ModuleList(
            ResUpBlock(a + skip, b, use_spectral_norm=use_spectral_norm)
            for (a, b), skip in zip(pairwise(widths), skips, strict=True)
        )
        self.conv = nn.Conv2d(
            widths[-1], 1, kernel_size=1
        )  # never with spectral norm, as published
        for name, parameter in self.named_parameters():
            if not name.endswith("bias"):
                nn.init.orthogonal_(parameter)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """Discriminate B x in_channels x H x W; the first three channels are an image in [0, 1]."""
        encoded = []
        for block in self.down_blocks:
            x = block(x)
            encoded.append(x)
        pooled = _PUBLISHED_AREA * F.relu(x).mean(dim=(2, 3))
        logits = self.linear(pooled)
        decoded = []
        for i, block in enumerate(self.up_blocks):
            x = block(x if i == 0 else torch.cat((x, encoded[-1 - i]), dim=1))
            decoded.append(x)
        pixel_logits = self.conv(x)
        return DiscriminatorOutput(
            full_precision(logits), full_precision(pixel_logits), encoded, decoded
        )
