"""Inpainting network: warps the source at every scale and paints what is occluded there."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from modules.blocks import DownBlock, ResBlock, SameBlock, UpBlock
from modules.geometry import full_precision, resize, resize_grid, warp
from modules.tpsmm.dense_motion import ThinPlateMotion


class InpaintingNetwork(nn.Module):
    """Encoder, warp and occlusion at every scale, decoder (TPSMM, section on multi-resolution
    occlusion masks). With InstanceNorm, which needs more than one pixel at the smallest scale.

    `encode` depends on the source alone: animation calls it once and `decode` for every frame.

    Args:
        width: channels at full resolution, doubled by every down block up to `max_width`.
        num_down_blocks: n; the smallest map has H / 2^n. There must be n + 1 occlusion maps.
    """

    def __init__(self, width: int, max_width: int, num_down_blocks: int) -> None:
        super().__init__()
        channels = [min(max_width, width * 2**i) for i in range(num_down_blocks + 1)]
        self.first = SameBlock(3, channels[0], norm="instance")
        self.down_blocks = nn.ModuleList(
            DownBlock(a, b, norm="instance") for a, b in pairwise(channels)
        )
        self.resblock = nn.ModuleList()
        self.up_blocks = nn.ModuleList()
        channels.reverse()
        for i, (a, b) in enumerate(pairwise(channels)):
            width = a if i == 0 else 2 * a  # but for the deepest, with the source's map behind it
            self.resblock.extend(ResBlock(width, norm="instance") for _ in range(2))
            self.up_blocks.append(UpBlock(width, b, norm="instance"))
        self.final = nn.Conv2d(channels[-1], 3, kernel_size=7, padding=3)

    def encode(self, source: Tensor) -> list[Tensor]:
        """`source`, B x 3 x H x W in [0, 1], and its maps at H, H / 2, ..., H / 2^n."""
        maps = [source, self.first(source)]
        for block in self.down_blocks:
            maps.append(block(maps[-1]))
        return maps

    def decode(self, features: Sequence[Tensor], motion: ThinPlateMotion) -> Tensor:
        """The prediction, B x 3 x H x W in [0, 1], from what `encode` made of the source and the
        motion.

        Full-size features and the image itself are blended by the last occlusion map o, y (1 - o) +
        warped o; at the scales below, the warped maps times their occlusion map go in.
        """
        image, full, *maps = (_warp(map_, motion.deformation) for map_ in features)
        seen = [
            _occlude(*pair) for pair in zip(reversed(maps), motion.occlusion_maps[:-1], strict=True)
        ]
        x = seen[0]
        for i, up in enumerate(self.up_blocks):
            if i > 0:
                x = torch.cat((x, seen[i]), dim=1)
            for block in self.resblock[2 * i : 2 * i + 2]:
                x = block(x)
            x = up(x)
        occlusion = resize(motion.occlusion_maps[-1], _size(x), align_corners=True)
        visible = occlusion.to(x.dtype)
        x = self.final(x * (1 - visible) + full * visible)
        painted = torch.sigmoid(full_precision(x))
        return painted * (1 - occlusion) + image * occlusion

    def forward(self, source: Tensor, motion: ThinPlateMotion) -> Tensor:
        """The source moved: B x 3 x H x W in [0, 1]."""
        return self.decode(self.encode(source), motion)

    def warped_features(self, features: Sequence[Tensor], motion: ThinPlateMotion) -> list[Tensor]:
        """What the warp loss compares of the source: o warp(e(S)), the smallest map first.

        `features` are those of `encode`. Only the deformation gets a gradient: otherwise features
        near zero or an empty occlusion map would lower this loss without a better motion.
        """
        return [
            _occlude(_warp(map_.detach(), motion.deformation), occlusion.detach())
            for map_, occlusion in zip(reversed(features[1:]), motion.occlusion_maps, strict=True)
        ]

    @torch.no_grad()
    def driving_features(self, driving: Tensor, motion: ThinPlateMotion) -> list[Tensor]:
        """What the warp loss compares them with: o e(D) of `driving`, B x 3 x H x W in [0, 1], the
        smallest map first. No gradient reaches it, as published.
        """
        maps = self.encode(driving)[1:]
        return [_occlude(*pair) for pair in zip(reversed(maps), motion.occlusion_maps, strict=True)]


def _size(map_: Tensor) -> tuple[int, int]:
    return (map_.shape[-2], map_.shape[-1])


def _warp(map_: Tensor, deformation: Tensor) -> Tensor:
    return warp(map_, resize_grid(deformation, _size(map_), align_corners=True))


def _occlude(map_: Tensor, occlusion_map: Tensor) -> Tensor:
    return map_ * resize(occlusion_map, _size(map_), align_corners=True).to(map_.dtype)
