"""Monkey-Net's discriminator, whose features are also what its images are compared by."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from modules.discriminator import DiscriminatorOutput, PatchBlock
from modules.geometry import full_precision


class MonkeyNetDiscriminator(nn.Module):
    """One logit for every patch (Monkey-Net, section 3.5): blocks of conv4x4 without padding,
    InstanceNorm, LeakyReLU and average pool, then conv1x1.

    Unlike FOMM's, it pools in the last block too.

    Args:
        in_channels: of the image and the heatmaps beside it.
        channels: of the blocks; no norm in the first.
        use_spectral_norm: of every convolution; published without.
    """

    def __init__(self, in_channels: int, channels: list[int], use_spectral_norm: bool) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(
            PatchBlock(a, b, norm=i > 0, pool=True, use_spectral_norm=use_spectral_norm)
            for i, (a, b) in enumerate(pairwise([in_channels, *channels]))
        )
        conv = nn.Conv2d(channels[-1], 1, kernel_size=1)
        self.conv = spectral_norm(conv) if use_spectral_norm else conv

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """Judge B x in_channels x H x W: the image in [0, 1], then the heatmaps of the driving
        keypoints (`covariance_heatmaps`) at its size, for real and generated images alike.
        """
        features = []
        for block in self.down_blocks:
            x = block(x)
            features.append(x)
        return DiscriminatorOutput(full_precision(self.conv(x)), None, features, [])

    @staticmethod
    def patch_side(side: int, num_blocks: int) -> int:
        """The side of the map of logits for an image of `side` pixels; below 1 nothing fits.

        A convolution takes 3 pixels and the pool halves the rest, so one logit needs at least
        2^(num_blocks + 2) - 3 pixels: 61 for four blocks.
        """
        for _ in range(num_blocks):
            side = (side - 3) // 2
        return side
