"""The section motion of kind fomm: First Order Motion Model (Siarohin et al., NeurIPS 2019)."""

from collections.abc import Iterator
from typing import Literal

from configs.motion.section import (
    PERCEPTUAL,
    Halvings,
    KeypointPriorConfig,
    MotionSection,
    NumDownBlocks,
    TransformConfig,
    hourglass_halvings,
)
from configs.section import HourglassConfig, Section
from configs.value_types import (
    NumKeypoints,
    NumResBlocks,
    Positive,
    ReluLayer,
    Weight,
    Width,
)
from modules.heatmaps import HeatmapStyle


class KeypointDetectorConfig(HourglassConfig):
    width: Width = 32
    num_keypoints: NumKeypoints = 10
    jacobian: Literal["per_keypoint", "shared", "none"] = "per_keypoint"
    temperature: Positive = 0.1  # of the softmax over space


class DenseMotionConfig(HourglassConfig):
    width: Width = 64
    heatmap_variance: Positive = 0.01  # of the Gaussian heatmaps, in [-1, 1]^2
    occlusion: bool = True  # predict an occlusion map
    heatmap_start: Weight = 0.0  # motion weights start around the keypoints, this sharply; ours


class GeneratorConfig(Section):
    width: Width = 64
    max_width: Width = 512
    num_down_blocks: NumDownBlocks = 2
    num_res_blocks: NumResBlocks = 6
    skip: bool = False  # show the warped source where it is visible; of a later paper
    learning_rate: Weight | None = None  # default: train.learning_rate


class MotionLosses(Section):
    """Weights of the losses; 0 switches one off. Setting `perceptual` replaces all its layers."""

    perceptual: dict[ReluLayer, Weight] = PERCEPTUAL
    pixel: Weight = 0.0  # mean absolute difference of the pixels; ours, not in the papers
    decoded: Weight = 0.0  # with generator.skip: the same of what the decoder paints; ours
    visibility: Weight = 0.0  # with generator.skip: teaches the occlusion map directly; ours
    equivariance_value: Weight = 10.0
    equivariance_jacobian: Weight = 10.0


class FommConfig(MotionSection):
    kind: Literal["fomm"] = "fomm"
    keypoint_detector: KeypointDetectorConfig = KeypointDetectorConfig()
    dense_motion: DenseMotionConfig = DenseMotionConfig()
    generator: GeneratorConfig = GeneratorConfig()
    transform: TransformConfig = TransformConfig()
    prior: KeypointPriorConfig = KeypointPriorConfig()
    losses: MotionLosses = MotionLosses()

    @property
    def num_keypoints(self) -> int:
        return self.keypoint_detector.num_keypoints

    @property
    def heatmap_style(self) -> HeatmapStyle:
        return HeatmapStyle(self.dense_motion.heatmap_variance)

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
            Halvings("motion.generator", "num_down_blocks", self.generator.num_down_blocks),
        ]

    def problems(self) -> Iterator[tuple[tuple[str, ...], str]]:
        weight = self.losses.equivariance_jacobian
        if weight > 0 and self.keypoint_detector.jacobian == "none":
            yield (
                ("motion.losses.equivariance_jacobian", "motion.keypoint_detector.jacobian"),
                f"found {weight:g} with motion.keypoint_detector.jacobian none; set it to 0",
            )
        if self.generator.skip and not self.dense_motion.occlusion:
            yield (
                ("motion.generator.skip", "motion.dense_motion.occlusion"),
                "found true with motion.dense_motion.occlusion false, which says where the source "
                "is visible; switch the occlusion map on, or the skip off",
            )
        for name in ("decoded", "visibility"):
            weight = getattr(self.losses, name)
            if weight > 0 and not self.generator.skip:
                yield (
                    (f"motion.losses.{name}", "motion.generator.skip"),
                    f"found {weight:g} with motion.generator.skip false; set it to 0",
                )
