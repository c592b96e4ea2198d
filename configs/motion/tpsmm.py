"""The section motion of kind tpsmm: Thin-Plate Spline Motion Model (Zhao and Zhang, CVPR 2022)."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from configs.motion.section import (
    PERCEPTUAL,
    Halvings,
    KeypointPriorConfig,
    MotionSection,
    TransformConfig,
    hourglass_halvings,
)
from configs.section import HourglassConfig, Section, Start
from configs.value_types import (
    Epoch,
    Pair,
    Positive,
    Probability,
    ReluLayer,
    Weight,
    Width,
)
from modules.heatmaps import HeatmapStyle


class TpsmmDetectorConfig(Section):
    num_plates: Annotated[int, Field(ge=1, le=100)] = 10  # thin plates of 5 keypoints each
    learning_rate: Weight | None = None


class PlateDropoutConfig(Section):
    """In early epochs plates are left out: with probability min(e / increase_epochs * highest +
    start, highest) in epoch e, and none from epoch `until_epoch` on.
    """

    start: Probability = 0.1
    highest: Probability = 0.3
    increase_epochs: Annotated[int, Field(ge=1, le=10**9)] = 10
    until_epoch: Epoch = 35


class TpsmmDenseMotionConfig(HourglassConfig):
    width: Width = 64
    heatmap_variance: Positive = 0.01
    dropout: PlateDropoutConfig = PlateDropoutConfig()


class TpsmmInpaintingConfig(Section):
    width: Width = 64
    max_width: Width = 512
    num_down_blocks: Annotated[int, Field(ge=1, le=10)] = 3
    learning_rate: Weight | None = None


class TpsmmBackgroundConfig(Section):
    """The predictor of the background's affine motion."""

    start_epoch: Epoch = 10
    start_share: Probability | None = None  # of the planned steps; then start_epoch is not used
    learning_rate: Weight | None = None


class TpsmmAvdConfig(Section):
    """The second stage: it trains a network that gives the source's shape to driving keypoints.

    Everything else is frozen and comes from a checkpoint of the first stage (--init-from).
    """

    code: Width = 128  # channels of either code
    proportions: Pair = [0.75, 1.25]  # range of the factors that stretch the driving keypoints
    learning_rate: Weight | None = None


class TpsmmLosses(Section):
    """Weights of the losses; 0 switches one off. Setting `perceptual` replaces all its layers."""

    perceptual: dict[ReluLayer, Weight] = PERCEPTUAL
    pixel: Weight = 0.0  # ours
    equivariance_value: Weight = 10.0
    warp: Weight = 10.0
    background: Weight = 10.0
    avd: Weight = 1.0  # the only loss of the second stage


class TpsmmConfig(MotionSection):
    kind: Literal["tpsmm"]
    keypoint_detector: TpsmmDetectorConfig = TpsmmDetectorConfig()
    dense_motion: TpsmmDenseMotionConfig = TpsmmDenseMotionConfig()
    inpainting: TpsmmInpaintingConfig = TpsmmInpaintingConfig()
    background_motion: TpsmmBackgroundConfig | None = TpsmmBackgroundConfig()
    avd: TpsmmAvdConfig | None = None
    transform: TransformConfig = TransformConfig()
    prior: KeypointPriorConfig = KeypointPriorConfig()
    clip_infinity_norm: Positive | None = 10.0  # largest element of the gradient of keypoint
    # detector, dense motion and background motion, each clipped by itself; null: no clipping
    losses: TpsmmLosses = TpsmmLosses()

    @property
    def starts(self) -> dict[str, Start]:
        background = self.background_motion
        if background is None:
            return {}
        name = "motion.background_motion"
        return {name: Start(name, background.start_epoch, background.start_share)}

    @property
    def num_keypoints(self) -> int:
        return 5 * self.keypoint_detector.num_plates

    @property
    def heatmap_style(self) -> HeatmapStyle:
        return HeatmapStyle(self.dense_motion.heatmap_variance)

    @property
    def predicts_occlusion(self) -> bool:
        return True

    @property
    def field_scale(self) -> float:
        return self.dense_motion.scale

    @property
    def full_width(self) -> int:
        return self.inpainting.width

    @property
    def trains_predictions(self) -> bool:
        return self.avd is None

    @property
    def infinity_limits(self) -> dict[str, float]:
        if self.clip_infinity_norm is None or self.avd is not None:
            return {}
        names = ["keypoint_detector", "dense_motion"]
        if self.background_motion is not None:
            names.append("background_motion")
        return dict.fromkeys(names, self.clip_infinity_norm)

    @property
    def halvings(self) -> list[Halvings]:
        return [
            hourglass_halvings("motion.dense_motion", self.dense_motion)._replace(rest="several"),
            Halvings(
                *("motion.inpainting", "num_down_blocks", self.inpainting.num_down_blocks),
                rest="several",
            ),
        ]

    def problems(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self.avd is None:
            return
        low, high = self.avd.proportions
        if low > high:
            yield (
                ("motion.avd.proportions",),
                f"found [{low:g}, {high:g}]; the first is larger",
            )
        if self.losses.avd == 0:
            yield (
                ("motion.losses.avd", "motion.avd"),
                "found 0 with the section motion.avd, which no other loss trains; set it to 1",
            )
