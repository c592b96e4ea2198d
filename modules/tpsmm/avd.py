"""Animation via disentanglement: the driving pose on the source's shape."""

from itertools import pairwise

import torch
from torch import nn

from common.batch_random import BatchRandom
from modules.geometry import full_precision
from modules.keypoint_detector import Keypoints


def _mlp(*sizes: int) -> nn.Sequential:
    """Linear - BatchNorm - ReLU to each size, and to the last one linear alone."""
    layers: list[nn.Module] = []
    for i, (size, next_size) in enumerate(pairwise(sizes)):
        if i > 0:
            layers += (nn.BatchNorm1d(size), nn.ReLU(inplace=True))
        layers.append(nn.Linear(size, next_size))
    return nn.Sequential(*layers)


class AVDNetwork(nn.Module):
    """Codes of the source's identity and of the driving pose, decoded into keypoints (TPSMM; after
    MRAA's animation via disentanglement). Trained by itself, on keypoints of a frozen detector.

    Args:
        num_keypoints: 5K.
        identity_size, pose_size: of the codes.
    """

    def __init__(self, num_keypoints: int, identity_size: int, pose_size: int) -> None:
        super().__init__()
        size = 2 * num_keypoints
        self.id_encoder = _mlp(size, 256, 512, 1024, identity_size)
        self.pose_encoder = _mlp(size, 256, 512, 1024, pose_size)
        self.decoder = _mlp(pose_size + identity_size, 1024, 512, 256, size)

    def forward(self, source: Keypoints, driving: Keypoints) -> Keypoints:
        """Keypoints B x 5K x 2 with the identity of `source` and the pose of `driving`."""
        # In float32: bf16 has 8 bits, not enough for a coordinate.
        with torch.autocast(driving.value.device.type, enabled=False):
            identity = self.id_encoder(full_precision(source.value).flatten(1))
            pose = self.pose_encoder(full_precision(driving.value).flatten(1))
            value = self.decoder(torch.cat((pose, identity), dim=1))
        return Keypoints(value.unflatten(1, (-1, 2)), None)


def random_proportions(
    keypoints: Keypoints, scales: tuple[float, float], random: BatchRandom
) -> Keypoints:
    """`keypoints`, B x 5K x 2, stretched along both axes by factors from `scales`, drawn anew for
    each sample: the figure of another identity in the same pose, to train `AVDNetwork`.
    """
    low, high = scales
    factors = low + (high - low) * random.uniform(keypoints.value.shape[0], 1, 2)
    return Keypoints(keypoints.value * factors, None)
