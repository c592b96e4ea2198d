"""The section motion of kind monkey_net: Monkey-Net (Siarohin et al., CVPR 2019)."""

from typing import Literal

from configs.motion.section import (
    Halvings,
    KeypointPriorConfig,
    MotionSection,
    hourglass_halvings,
)
from configs.section import HourglassConfig, Section
from configs.value_types import (
    HeatmapDivisor,
    NumBlocks,
    NumKeypoints,
    NumResBlocks,
    Positive,
    ReluLayer,
    Weight,
    Width,
)
from modules.heatmaps import HeatmapStyle


class MonkeyNetDetectorConfig(HourglassConfig):
    width: Width = 32
    num_keypoints: NumKeypoints = 10
    temperature: Positive = 0.1  # of the softmax over space
    min_variance: Positive | None = 0.001  # of a keypoint, along its narrow axis; null: no limit


class MonkeyNetDenseMotionConfig(HourglassConfig):
    width: Width = 32
    use_difference: bool = False  # the network also sees the shift of each keypoint
    occlusion: bool = False  # predict an occlusion map; ours, for PriorityCut


class MonkeyNetGeneratorConfig(Section):
    width: Width = 32
    max_width: Width = 1024
    num_blocks: NumBlocks = 7
    num_res_blocks: NumResBlocks = 4
    interpolation: Literal["bilinear", "nearest"] = "bilinear"  # of field and heatmaps
    learning_rate: Weight | None = None


class MonkeyNetLosses(Section):
    """Weights of the losses; the loss of discriminator features is in `discriminator`."""

    perceptual: dict[ReluLayer, Weight] = {}  # ours
    pixel: Weight = 10.0
    deformed: Weight = 0.0  # mean absolute difference of the warped source and the driving frame


class MonkeyNetConfig(MotionSection):
    kind: Literal["monkey_net"]
    heatmap_divisor: HeatmapDivisor = 100.0  # of the keypoints' heatmaps; sum: each by its own sum
    keypoint_detector: MonkeyNetDetectorConfig = MonkeyNetDetectorConfig()
    dense_motion: MonkeyNetDenseMotionConfig = MonkeyNetDenseMotionConfig()
    generator: MonkeyNetGeneratorConfig = MonkeyNetGeneratorConfig()
    prior: KeypointPriorConfig = KeypointPriorConfig()
    losses: MonkeyNetLosses = MonkeyNetLosses()

    @property
    def num_keypoints(self) -> int:
        return self.keypoint_detector.num_keypoints

    @property
    def heatmap_style(self) -> HeatmapStyle:
        return HeatmapStyle(norm=self.heatmap_divisor)

    @property
    def predicts_occlusion(self) -> bool:
        return self.dense_motion.occlusion

    @property
    def occlusion_key(self) -> str:
        return "motion.dense_motion.occlusion"

    @property
    def field_scale(self) -> float:
        return self.dense_motion.scale

    @property
    def full_width(self) -> int:
        return self.generator.width

    @property
    def halvings(self) -> list[Halvings]:
        return [
            hourglass_halvings("motion.keypoint_detector", self.keypoint_detector),
            hourglass_halvings("motion.dense_motion", self.dense_motion),
            Halvings("motion.generator", "num_blocks", self.generator.num_blocks),
        ]
