"""Tiny sizes of every kind of motion model, as overrides of the tiny config."""

from typing import Final

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

ALONE: Final = ("masks=null", "background=null", "discriminator=null")

MONKEY_NET: Final = (
    "motion={kind: monkey_net,"
    " keypoint_detector: {width: 4, max_width: 16, num_blocks: 2, scale: 0.5, num_keypoints: 4},"
    " dense_motion: {width: 4, max_width: 16, num_blocks: 2, scale: 0.5, use_difference: true},"
    " generator: {width: 4, max_width: 16, num_blocks: 2, num_res_blocks: 1},"
    " losses: {deformed: 1}}"
)
# As published, it learns from the features of its discriminator.
MONKEY_NET_DISCRIMINATOR: Final = (
    "discriminator={kind: monkey_net, channels: [4, 8], keypoints: true, detach: false,"
    " spectral_norm: false, cut: {kind: none}, generator_losses: {encoder_features: [10, 1]}}"
)
X2FACE: Final = (
    "motion={kind: x2face,"
    " embedding: {width: 4, max_width: 8, code: 8, num_levels: 5},"
    " driving: {width: 4, max_width: 8, code: 4, num_levels: 5}}"
)
TPSMM: Final = (
    "motion={kind: tpsmm, keypoint_detector: {num_plates: 2},"
    " dense_motion: {width: 4, max_width: 16, num_blocks: 2, scale: 0.5},"
    " inpainting: {width: 4, max_width: 16, num_down_blocks: 2},"
    " background_motion: {start_epoch: 0},"
    " losses: {perceptual: {relu1_1: 10, relu2_1: 10}, pixel: 1}}"
)
AVD: Final = "motion.avd={code: 4}"

# A motion model trained by itself.
KINDS: Final = {
    "fomm": ALONE,
    "monkey_net": (MONKEY_NET, *ALONE),
    "x2face": (X2FACE, *ALONE),
    "tpsmm": (TPSMM, *ALONE),
    "tpsmm_avd": (TPSMM, AVD, *ALONE),
}


class SmallResNet(nn.Module):
    """Stands in for ResNet-18, which has a third of a second a step and 45 MB in a checkpoint."""

    def __init__(self, weights: None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 4, kernel_size=3, padding=1)
        self.fc = nn.Linear(4 * 4 * 4, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(F.relu(self.bn1(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 4).flatten(1))


def use_small_resnets(patch: pytest.MonkeyPatch) -> None:
    """Let detector and background of kind tpsmm have a `SmallResNet` in place of ResNet-18."""
    patch.setattr("modules.tpsmm.resnet.resnet18", SmallResNet)
