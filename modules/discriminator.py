"""Discriminators: of patches (FOMM+), and the U-Net that also judges every pixel."""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from modules.blocks import UpConv2d
from modules.geometry import full_precision

_PUBLISHED_AREA = 4 * 4  # pixels of the U-Net's deepest map, for 256 x 256 and six blocks


class DiscriminatorOutput(NamedTuple):
    """logits: what the encoder says of the whole, B x 1, or of every patch, B x 1 x h x w; high
        means real.
    pixel_logits: what the decoder says of every pixel, B x 1 x H x W; None without a decoder.
    encoder_features: of every block, the first and largest first.
    decoder_features: of every block, the smallest first; empty without a decoder.

    Logits are float32.
    """

    logits: Tensor
    pixel_logits: Tensor | None
    encoder_features: list[Tensor]
    decoder_features: list[Tensor]


def _normalized(layer: nn.Module, use_spectral_norm: bool) -> nn.Module:
    """`layer`, its weight divided by an estimate of its largest singular value (Miyato et al.,
    2018) where `use_spectral_norm` is set. Parameter and buffers are `weight_orig`, `weight_u` and
    `weight_v`, as in published checkpoints.
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
    """One logit for every patch (FOMM+, design after pix2pixHD).

    Args:
        in_channels: of the image and what is shown beside it.
        channels: of the blocks; no norm in the first, no pooling in the last.
        use_spectral_norm: of every convolution.
    """

    def __init__(self, in_channels: int, channels: list[int], use_spectral_norm: bool) -> None:
        super().__init__()
        last = len(channels) - 1
        self.down_blocks = nn.ModuleList(
            PatchBlock(a, b, norm=i > 0, pool=i < last, use_spectral_norm=use_spectral_norm)
            for i, (a, b) in enumerate(pairwise([in_channels, *channels]))
        )
        self.conv = _normalized(nn.Conv2d(channels[-1], 1, kernel_size=1), use_spectral_norm)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """Judge B x in_channels x H x W, its first three the image in [0, 1]."""
        features = []
        for block in self.down_blocks:
            x = block(x)
            features.append(x)
        return DiscriminatorOutput(full_precision(self.conv(x)), None, features, [])

    @staticmethod
    def patch_side(side: int, num_blocks: int) -> int:
        """The side of the map of logits for an image of `side` pixels; below 1 nothing fits, and
        of a single logit InstanceNorm could take no statistics.
        """
        for _ in range(num_blocks - 1):
            side = (side - 3) // 2
        return side - 3


class ResDownBlock(nn.Module):
    """Twice ReLU - conv3x3, then average pool by 2; conv1x1 and the same pool as a shortcut.

    The first block of a network sees pixels and leaves its first ReLU out.
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
        # A 1 x 1 convolution and a mean can be exchanged; on the small map it costs a quarter.
        return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))


class ResUpBlock(nn.Module):
    """ReLU - nearest x2 - conv3x3 - ReLU - conv3x3; conv1x1 and nearest x2 as a shortcut."""

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
    """One logit for the image and one for every pixel (Schönfeld et al., 2020, section 3.1).

    The encoder halves the image with every block and ends in a sum over space and a linear layer.
    The sum is that of the published 4 x 4 map: of a map of another size, the mean times 16, so that
    the logits start alike whatever the size and depth. The decoder doubles it again, joined by the
    encoder's map of each size. No statistics of the batch: samples are judged one by one. H and W
    must be multiples of 2^blocks.

    Weights start orthogonal, as in that work: a random matrix divided by its largest singular value
    would make the signal vanish in the depth.

    Args:
        in_channels: of the image and what is shown beside it.
        channels: of the encoder's blocks. The decoder has them backwards, without the deepest, and
            the first one twice: 1, 2, 4, 8, 8, 16 comes up as 8, 8, 4, 2, 1, 1.
        use_spectral_norm: of every layer but the last 1 x 1 convolution, which the published code
            leaves without.
    """

    def __init__(self, in_channels: int, channels: list[int], use_spectral_norm: bool) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(
            ResDownBlock(a, b, first=i == 0, use_spectral_norm=use_spectral_norm)
            for i, (a, b) in enumerate(pairwise([in_channels, *channels]))
        )
        self.linear = _normalized(nn.Linear(channels[-1], 1), use_spectral_norm)
        skips = [0, *reversed(channels[:-1])]  # the deepest map comes alone
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
        """Judge B x in_channels x H x W, its first three the image in [0, 1]."""
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
