"""Building blocks that the networks share (design after FOMM, supplementary material A).

Attribute names are those of the published checkpoints, so that their tensors load by name.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.geometry import full_precision

NormKind = Literal["batch", "instance"]
MIN_FUSED_AREA: float = 32 * 32  # pixels; below, building the kernel costs more than it saves


class AntiAliasDownsample(nn.Module):
    """Gaussian blur, then every (1/scale)-th pixel: B x C x H x W -> B x C x H*scale x W*scale.

    sigma = (1/scale - 1) / 2, kernel 2 * round(4 sigma) + 1, zero padding. Separable: one pass
    over the columns and one over the rows, each computing only the pixels that are kept. Runs in
    float32 under autocast.
    """

    kernel: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.stride = round(1 / scale)
        sigma = (1 / scale - 1) / 2
        radius = round(4 * sigma)
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        kernel = torch.exp(-(offsets**2) / (2 * sigma**2)) if sigma > 0 else torch.ones(1)
        # Derived from the scale, so it is not part of a checkpoint.
        self.register_buffer("kernel", (kernel / kernel.sum()).float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        if self.stride == 1:
            return image
        channels, radius = image.shape[1], self.kernel.numel() // 2
        with torch.autocast(image.device.type, enabled=False):
            image = full_precision(image)
            kernel = self.kernel.to(image.dtype)
            columns = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
            rows = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
            image = F.conv2d(
                image, columns, stride=(self.stride, 1), padding=(radius, 0), groups=channels
            )
            return F.conv2d(
                image, rows, stride=(1, self.stride), padding=(0, radius), groups=channels
            )


class UpConv2d(nn.Conv2d):
    """Nearest x2 - conv3x3: B x C x H x W -> B x C' x 2H x 2W.

    Each output pixel sees 2 x 2 input pixels, some of them more than once. Summed up, the taps of
    the 3 x 3 kernel make one transposed convolution with 4 x 4 taps and stride 2, which takes 4
    products where the definition takes 9. The parameters are those of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] * x.shape[-1] < MIN_FUSED_AREA:
            # Autocast on the CPU would have `interpolate` turn everything into float32.
            with torch.autocast(x.device.type, enabled=False):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            return super().forward(x)
        kernel = upsampling_kernel(self.weight)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


def upsampling_kernel(weight: Tensor) -> Tensor:
    """C' x C x 3 x 3 of a convolution -> C x C' x 4 x 4 of the transposed one that is the same as
    nearest x2 before it.
    """
    # A transposed convolution is correlation with the kernel turned around. Nearest x2 is one with
    # 2 x 2 ones, and the two kernels convolved are the sum of the four shifts of the first.
    turned = F.pad(weight.transpose(0, 1).flip(2, 3), (1, 1, 1, 1))
    rows = turned[:, :, 1:] + turned[:, :, :-1]
    return rows[..., 1:] + rows[..., :-1]


def norm_layer(kind: NormKind, channels: int) -> nn.Module:
    """BatchNorm, or InstanceNorm with a weight and a bias for each channel."""
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels, affine=True)


class DownBlock(nn.Module):
    """conv3x3 - norm - ReLU - average pool by 2."""

    def __init__(self, in_channels: int, out_channels: int, norm: NormKind = "batch") -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm = norm_layer(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.relu(self.norm(self.conv(x))), 2)


class UpBlock(nn.Module):
    """Nearest x2 - conv3x3 - norm - ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm: NormKind = "batch") -> None:
        super().__init__()
        self.conv = UpConv2d(in_channels, out_channels)
        self.norm = norm_layer(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class SameBlock(nn.Module):
    """conv7x7 - norm - ReLU at the same size."""

    def __init__(self, in_channels: int, out_channels: int, norm: NormKind = "batch") -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=7, padding=3)
        self.norm = norm_layer(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class ResBlock(nn.Module):
    """Pre-activation residual block: twice norm - ReLU - conv3x3, plus the input."""

    def __init__(self, channels: int, norm: NormKind = "batch") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.norm1 = norm_layer(norm, channels)
        self.norm2 = norm_layer(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        return x + y


class Encoder(nn.Module):
    """Down blocks of width `min(max_width, width * 2^(i+1))`; returns the input and every map."""

    def __init__(
        self,
        width: int,
        in_channels: int,
        max_width: int,
        num_blocks: int,
        *,
        norm: NormKind = "batch",
    ) -> None:
        super().__init__()
        channels = [in_channels, *(min(max_width, width * 2 ** (i + 1)) for i in range(num_blocks))]
        self.down_blocks = nn.ModuleList(DownBlock(a, b, norm) for a, b in pairwise(channels))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x]
        for block in self.down_blocks:
            maps.append(block(maps[-1]))
        return maps


class Decoder(nn.Module):
    """Up blocks to `min(max_width, width * 2^i)`, each followed by the encoder map of that size.

    Without skips the deepest map is all it sees. Returns the deepest map and every map after it,
    the largest last; `out_channels` are the channels of these, in the same order.
    """

    def __init__(
        self,
        width: int,
        in_channels: int,
        max_width: int,
        num_blocks: int,
        *,
        skips: bool,
        norm: NormKind = "batch",
    ) -> None:
        super().__init__()
        self.skips = skips
        encoded = [in_channels, *(min(max_width, width * 2 ** (i + 1)) for i in range(num_blocks))]
        self.out_channels = [encoded[-1]]
        self.up_blocks = nn.ModuleList()
        for i in reversed(range(num_blocks)):
            channels = min(max_width, width * 2**i)
            self.up_blocks.append(UpBlock(self.out_channels[-1], channels, norm))
            self.out_channels.append(channels + (encoded[i] if skips else 0))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        decoded = [maps[-1]]
        for block, skip in zip(self.up_blocks, reversed(maps[:-1]), strict=True):
            x = block(decoded[-1])
            decoded.append(torch.cat((x, skip), dim=1) if self.skips else x)
        return decoded


class Hourglass(nn.Module):
    """U-Net of `num_blocks` levels: B x in_channels x H x W -> B x out_channels x H x W.

    The input image itself is the last skip connection: `out_channels = width + in_channels`.
    Without `skips` nothing bypasses the deepest map, and `out_channels = width`. H and W must be
    multiples of 2^num_blocks.
    """

    def __init__(
        self,
        width: int,
        in_channels: int,
        max_width: int,
        num_blocks: int,
        *,
        skips: bool = True,
        norm: NormKind = "batch",
    ) -> None:
        super().__init__()
        self.encoder = Encoder(width, in_channels, max_width, num_blocks, norm=norm)
        self.decoder = Decoder(width, in_channels, max_width, num_blocks, skips=skips, norm=norm)
        self.out_channels = self.decoder.out_channels[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1]

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maps of every level of the decoder, from the deepest to that of full size."""
        return self.decoder(self.encoder(x))
