"""X2Face: sources become one embedded face, and a driving frame says where to sample it.

After Wiles, Koepke and Zisserman, ECCV 2018. There are no keypoints and no generator: every pixel
of a prediction is a pixel of a source.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.geometry import coordinate_grid, full_precision, resize, warp

MIN_WEIGHT = 0.1  # of a source before the mean, so that none is ever lost


class EmbeddedFace(NamedTuple):
    """What N sources of one person make together; driving frames sample it.

    image: B x 3 x H x W in [0, 1], the weighted mean of the sources, each sampled at its field.
    field: B x N x H x W x 2; where in each source, (x, y) in [-1, 1], a pixel of `image` comes
        from. It may point outside, where a source is black.
    weight: B x N x H x W; the share of each source, which sum to 1.
    """

    image: Tensor
    field: Tensor
    weight: Tensor


class PlacedSources(NamedTuple):
    """Sources brought into the pose of the embedded face, each by itself.

    image: B x 3 x H x W in [0, 1], the source sampled at its field.
    field: B x H x W x 2, (x, y) in [-1, 1].
    weight: B x H x W, at least .1: what the source counts for in a mean with others.
    """

    image: Tensor
    field: Tensor
    weight: Tensor


class UNetDownBlock(nn.Module):
    """LeakyReLU .2 - conv4x4 of stride 2 - BatchNorm: B x C x H x W -> B x C' x H/2 x W/2.

    Args:
        activation: False for the outermost block, which sees the image itself.
        norm: False for the outermost and the innermost; a map of 1 x 1 has no spread to divide by.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, activation: bool, norm: bool
    ) -> None:
        super().__init__()
        self.activation = activation
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.leaky_relu(x, 0.2) if self.activation else x)
        return x if self.norm is None else self.norm(x)


class UNetUpBlock(nn.Module):
    """ReLU - bilinear x2 - conv3x3 - BatchNorm: B x C x H x W -> B x C' x 2H x 2W.

    Args:
        norm: False for the outermost block, whose maps are coordinates.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        # Autocast on the CPU would have the resizing turn everything into float32.
        with torch.autocast(x.device.type, enabled=False):
            size = (2 * x.shape[-2], 2 * x.shape[-1])
            x = resize(F.relu(x), size, align_corners=True)
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)


class UNet(nn.Module):
    """U-Net that halves an image to a code of 1 x 1 and doubles it back (X2Face, section 3.1).

    Args:
        width: channels at half the resolution, doubled level by level up to `max_width`.
        num_levels: times that the image is halved; log2 of its side for a code of 1 x 1.
        code_size: channels of the innermost map, whatever the widths.
        out_channels: of the output, which has no activation.
        skips: let each level but the outermost see the encoder's map of its size too. Without,
            all that reaches the output is the code.
    """

    def __init__(
        self,
        width: int,
        max_width: int,
        num_levels: int,
        code_size: int,
        out_channels: int,
        *,
        skips: bool,
    ) -> None:
        super().__init__()
        self.skips = skips
        widths = [min(max_width, width * 2**i) for i in range(num_levels - 1)]
        encoded = [3, *widths, code_size]
        self.down_blocks = nn.ModuleList(
            UNetDownBlock(a, b, activation=level > 0, norm=0 < level < num_levels - 1)
            for level, (a, b) in enumerate(pairwise(encoded))
        )
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(num_levels)):
            is_joined = skips and level < num_levels - 1
            self.up_blocks.append(
                UNetUpBlock(
                    (2 if is_joined else 1) * encoded[level + 1],
                    encoded[level] if level > 0 else out_channels,
                    norm=level > 0,
                )
            )

    def encode(self, image: Tensor) -> list[Tensor]:
        """Maps of `image`, B x 3 x H x W: one for each level, before its activation; the code last.

        Raises:
            ValueError: H or W is no power of two, or is smaller than 2^num_levels.
        """
        check_size(image.shape[-2], image.shape[-1], len(self.down_blocks))
        maps: list[Tensor] = []
        for block in self.down_blocks:
            maps.append(block(maps[-1] if maps else image))
        return maps

    def decode(self, maps: list[Tensor]) -> Tensor:
        """B x out_channels x H x W from the maps that `encode` returns."""
        innermost, *others = self.up_blocks
        x: Tensor = innermost(maps[-1])
        for block, skip in zip(others, reversed(maps[:-1]), strict=True):
            x = block(torch.cat((x, skip), dim=1) if self.skips else x)
        return x

    def forward(self, image: Tensor) -> Tensor:
        return self.decode(self.encode(image))


def check_size(height: int, width: int, num_levels: int) -> None:
    """Make sure that an image can be halved `num_levels` times, and further to 1 x 1.

    Raises:
        ValueError: says which sizes can.
    """
    for side in (height, width):
        if side < 2**num_levels or side & (side - 1):
            raise ValueError(
                f"an image of {height} x {width}: X2Face of {num_levels} levels takes sides that "
                f"are a power of two and at least {2**num_levels}"
            )


class EmbeddingNetwork(nn.Module):
    """Brings sources into one pose and averages them there (X2Face, section 3.1).

    Args:
        width, max_width, num_levels, code_size: of the U-Net, which has skips.
    """

    def __init__(self, width: int, max_width: int, num_levels: int, code_size: int) -> None:
        super().__init__()
        # A shift (x, y) and a confidence c for each pixel.
        self.unet = UNet(width, max_width, num_levels, code_size, out_channels=3, skips=True)

    def place(self, frames: Tensor) -> PlacedSources:
        """Bring `frames`, B x 3 x H x W in [0, 1], into the pose of the embedded face.

        Each is sampled at z + tanh(x, y) and weighs exp(c) + .1.

        Raises:
            ValueError: H or W does not fit the number of levels.
        """
        raw = self.unet(frames)
        # bf16 has 8 bits: not enough for a coordinate.
        with torch.autocast(frames.device.type, enabled=False):
            raw = full_precision(raw)
            field = shifted_grid(raw[:, :2].tanh())
            return PlacedSources(warp(frames, field), field, raw[:, 2].exp() + MIN_WEIGHT)

    def forward(self, sources: Tensor) -> EmbeddedFace:
        """The face of `sources`, B x N x 3 x H x W in [0, 1]: N frames of each person.

        Raises:
            ValueError: H or W does not fit the number of levels.
        """
        sizes = (sources.shape[0], sources.shape[1])
        placed = PlacedSources(*(x.unflatten(0, sizes) for x in self.place(sources.flatten(0, 1))))
        if sizes[1] == 1:
            # A quotient would be 1 too, but its gradient rounding noise, which Adam would magnify.
            share = torch.ones_like(placed.weight)
            return EmbeddedFace(placed.image[:, 0], placed.field, share)
        share = placed.weight / placed.weight.sum(dim=1, keepdim=True)
        image = (share.unsqueeze(2) * placed.image).sum(dim=1)
        return EmbeddedFace(image, placed.field, share)


class DrivingNetwork(nn.Module):
    """Says for each pixel of a driving frame where in an embedded face it lies (X2Face, section
    3.1). Its code is all that it keeps of the frame: pose and expression.

    Args:
        width, max_width, num_levels, code_size: of the U-Net, which has no skips.
    """

    def __init__(self, width: int, max_width: int, num_levels: int, code_size: int) -> None:
        super().__init__()
        self.unet = UNet(width, max_width, num_levels, code_size, out_channels=2, skips=False)

    def forward(self, driving: Tensor) -> Tensor:
        """The field of `driving`, B x 3 x H x W in [0, 1]: B x H x W x 2, x first.

        Raises:
            ValueError: H or W does not fit the number of levels.
        """
        raw = self.unet(driving)
        with torch.autocast(driving.device.type, enabled=False):
            # The published network ends with a tanh, and its output goes through another one: so no
            # shift is larger than .76.
            return shifted_grid(full_precision(raw).tanh().tanh())


def sample_face(face: EmbeddedFace, driving_field: Tensor) -> Tensor:
    """The prediction, B x 3 x H x W: `face`, of batch B or 1, sampled at B x H x W x 2."""
    return warp(face.image.expand(driving_field.shape[0], -1, -1, -1), driving_field)


def compose_fields(field: Tensor, driving_field: Tensor) -> Tensor:
    """`field` (B x N x H x W x 2) sampled at `driving_field` (B x h x w x 2): B x N x h x w x 2.

    Where the driving field leaves [-1, 1], the composed one does so too: there it goes on as the
    driving field does.
    """
    num_sources, height, width = field.shape[1:4]
    # Sampling the shifts and adding the driving field is the same inside, where sampling the grid
    # itself gives the place of the sample; outside, where zeros are read, it is not the centre.
    shifts = field - coordinate_grid(height, width, field)
    maps = shifts.permute(0, 1, 4, 2, 3).flatten(1, 2)
    sampled = warp(maps, driving_field).unflatten(1, (num_sources, 2)).permute(0, 1, 3, 4, 2)
    return driving_field.unsqueeze(1) + sampled


def shifted_grid(shift: Tensor) -> Tensor:
    """Each pixel's place plus its shift, B x 2 x H x W with x first: B x H x W x 2."""
    grid = coordinate_grid(shift.shape[-2], shift.shape[-1], shift)
    return grid + shift.permute(0, 2, 3, 1)


def initialize(network: nn.Module) -> None:
    """Draw the weights that published training starts from, from the global random stream.

    Convolutions: Xavier, normal. BatchNorm: weights uniform in (.02, 1), biases 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.02, 1.0)
            nn.init.zeros_(layer.bias)
