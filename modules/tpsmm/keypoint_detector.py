"""Keypoints in groups, one group for each thin plate, regressed from the whole frame."""

from torch import Tensor, nn

from modules.keypoint_detector import Keypoints
from modules.tpsmm.resnet import coordinate_resnet
from modules.tpsmm.thin_plates import POINTS_PER_PLATE


class GroupedKeypointDetector(nn.Module):
    """ResNet-18 to K groups of 5 keypoints (TPSMM, section on TPS motion estimation).

    Args:
        num_plates: K.
    """

    def __init__(self, num_plates: int) -> None:
        super().__init__()
        self.fg_encoder = coordinate_resnet(3, num_plates * POINTS_PER_PLATE * 2)

    def forward(self, frame: Tensor) -> Keypoints:
        """Detect the keypoints of `frame`, B x 3 x H x W in [0, 1]: value B x 5K x 2, group by
        group, 2 sigmoid(x) - 1 of what the network says; no Jacobians.
        """
        coordinates = self.fg_encoder(frame).sigmoid() * 2 - 1
        return Keypoints(coordinates.unflatten(1, (-1, 2)), None)
