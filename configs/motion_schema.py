"""The section `motion`: one class for each kind of motion model, with the keys of that kind.

A section without `kind` is of kind fomm. What the rest of the program asks of a section, whatever
its kind, are the properties of `MotionSection`.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag

from configs.section import HourglassConfig, Section, Start
from configs.value_types import (
    Epoch,
    GridSize,
    NumBlocks,
    NumKeypoints,
    NumResBlocks,
    Positive,
    Probability,
    ReluLayer,
    Weight,
    Width,
)

NumDownBlocks = Annotated[int, Field(ge=0, le=10)]  # 0: warps at full resolution
NumLevels = Annotated[int, Field(ge=4, le=11)]  # of a network down to 1 x 1 pixel


class HeatmapStyle(NamedTuple):
    """How keypoints become the heatmaps that a discriminator sees.

    variance: of isotropic Gaussians, in [-1, 1]^2; used where keypoints have no covariance.
    divisor: the heatmaps are divided by it; None: each heatmap by its own sum over the pixels.
    """

    variance: float
    divisor: float | None = 1.0


class Halvings(NamedTuple):
    """A network that halves its input `number` times; `number` is the value of `section.key`.

    scale: size of the input, as a part of the image's.
    """

    section: str
    key: str
    number: int
    scale: float = 1.0


class MotionSection(Section):
    """What the rest of the program asks of the section, whatever its kind."""

    kind: str

    @property
    def starts(self) -> dict[str, Start]:
        """When the parts that wait for others start to learn, by their sections."""
        return {}

    @property
    @abstractmethod
    def num_keypoints(self) -> int | None:
        """K; None for a model without keypoints."""

    @property
    def heatmap_style(self) -> HeatmapStyle:
        """The style of the keypoints' heatmaps."""
        return HeatmapStyle(0.01)

    @property
    @abstractmethod
    def predicts_occlusion(self) -> bool:
        """Whether the model has an occlusion map."""

    @property
    def occlusion_key(self) -> str | None:
        """The dotted key that switches the occlusion map on; None where there is none."""
        return None

    @property
    @abstractmethod
    def predicts_background(self) -> bool:
        """Whether the model gives a motion of the background a weight in each pixel."""

    @property
    @abstractmethod
    def field_scale(self) -> float:
        """Size of the motion field, as a part of the image's."""

    @property
    @abstractmethod
    def full_width(self) -> int:
        """Channels of the maps at full resolution."""

    @property
    @abstractmethod
    def halvings(self) -> list[Halvings]:
        """Its networks that halve their input."""

    def problems(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Broken rules between keys of the section: the dotted keys, and the reason."""
        yield from ()


PERCEPTUAL: dict[ReluLayer, float] = {
    "relu1_1": 10.0,
    "relu2_1": 10.0,
    "relu3_1": 10.0,
    "relu4_1": 10.0,
    "relu5_1": 10.0,
}


class TransformConfig(Section):
    """The random affine and thin-plate transform of the equivariance losses (FOMM, section 3.3)."""

    affine_std: Weight = 0.05
    thin_plate_std: Weight = 0.005
    grid_size: GridSize = 5  # control points a side


# First Order Motion Model (Siarohin et al., NeurIPS 2019)


class KeypointDetectorConfig(HourglassConfig):
    width: Width = 32
    num_keypoints: NumKeypoints = 10
    jacobian: Literal["per_keypoint", "shared", "none"] = "per_keypoint"
    temperature: Positive = 0.1  # of the softmax over space


class DenseMotionConfig(HourglassConfig):
    width: Width = 64
    heatmap_variance: Positive = 0.01  # of the Gaussian heatmaps, in [-1, 1]^2
    occlusion: bool = True  # predict an occlusion map


class GeneratorConfig(Section):
    width: Width = 64
    max_width: Width = 512
    num_down_blocks: NumDownBlocks = 2
    num_res_blocks: NumResBlocks = 6
    learning_rate: Weight | None = None  # default: train.learning_rate


class MotionLosses(Section):
    """Weights of the losses; 0 switches one off. Setting `perceptual` replaces all its layers."""

    perceptual: dict[ReluLayer, Weight] = PERCEPTUAL
    pixel: Weight = 0.0  # mean absolute difference of the pixels; ours, not in the papers
    equivariance_value: Weight = 10.0
    equivariance_jacobian: Weight = 10.0


class FommConfig(MotionSection):
    kind: Literal["fomm"] = "fomm"
    keypoint_detector: KeypointDetectorConfig = KeypointDetectorConfig()
    dense_motion: DenseMotionConfig = DenseMotionConfig()
    generator: GeneratorConfig = GeneratorConfig()
    transform: TransformConfig = TransformConfig()
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
    def predicts_background(self) -> bool:
        return True

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


# Monkey-Net (Siarohin et al., CVPR 2019)


class MonkeyNetDetectorConfig(HourglassConfig):
    width: Width = 32
    num_keypoints: NumKeypoints = 10
    temperature: Positive = 0.1  # of the softmax over space
    min_variance: Positive | None = 0.001  # of a keypoint, along its narrow axis; null: no limit
    learning_rate: Weight | None = None


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
    heatmap_divisor: Positive | Literal["sum"] = 100.0  # of the keypoints' heatmaps; sum: their own
    keypoint_detector: MonkeyNetDetectorConfig = MonkeyNetDetectorConfig()
    dense_motion: MonkeyNetDenseMotionConfig = MonkeyNetDenseMotionConfig()
    generator: MonkeyNetGeneratorConfig = MonkeyNetGeneratorConfig()
    losses: MonkeyNetLosses = MonkeyNetLosses()

    @property
    def num_keypoints(self) -> int:
        return self.keypoint_detector.num_keypoints

    @property
    def heatmap_style(self) -> HeatmapStyle:
        divisor = self.heatmap_divisor
        return HeatmapStyle(0.01, None if divisor == "sum" else divisor)

    @property
    def predicts_occlusion(self) -> bool:
        return self.dense_motion.occlusion

    @property
    def occlusion_key(self) -> str:
        return "motion.dense_motion.occlusion"

    @property
    def predicts_background(self) -> bool:
        return True

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


# X2Face (Wiles et al., ECCV 2018)


class X2FaceEmbeddingConfig(Section):
    width: Width = 64
    max_width: Width = 512
    code: Width = 512  # channels at 1 x 1 pixel
    num_levels: NumLevels = 8  # halvings, down to 1 x 1 pixel
    learning_rate: Weight | None = None


class X2FaceDrivingConfig(X2FaceEmbeddingConfig):
    code: Width = 128


class X2FaceLosses(Section):
    """Weights of the losses; 0 switches one off."""

    perceptual: dict[ReluLayer, Weight] = {}  # ours
    pixel: Weight = 1.0


class X2FaceConfig(MotionSection):
    kind: Literal["x2face"]
    embedding: X2FaceEmbeddingConfig = X2FaceEmbeddingConfig()
    driving: X2FaceDrivingConfig = X2FaceDrivingConfig()
    losses: X2FaceLosses = X2FaceLosses()

    @property
    def num_keypoints(self) -> None:
        return None

    @property
    def predicts_occlusion(self) -> bool:
        return False

    @property
    def predicts_background(self) -> bool:
        return False

    @property
    def field_scale(self) -> float:
        return 1.0

    @property
    def full_width(self) -> int:
        return self.embedding.width

    @property
    def halvings(self) -> list[Halvings]:
        return [
            Halvings("motion.embedding", "num_levels", self.embedding.num_levels),
            Halvings("motion.driving", "num_levels", self.driving.num_levels),
        ]


# Thin-Plate Spline Motion Model (Zhao and Zhang, CVPR 2022)


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
    """The second stage: a network that puts another's motion on a shape. All else is frozen."""

    code: Width = 128  # channels of either code
    learning_rate: Weight | None = None


class TpsmmLosses(Section):
    """Weights of the losses; 0 switches one off. Setting `perceptual` replaces all its layers."""

    perceptual: dict[ReluLayer, Weight] = PERCEPTUAL
    pixel: Weight = 0.0  # ours
    equivariance_value: Weight = 10.0
    warp: Weight = 10.0
    background: Weight = 10.0


class TpsmmConfig(MotionSection):
    kind: Literal["tpsmm"]
    keypoint_detector: TpsmmDetectorConfig = TpsmmDetectorConfig()
    dense_motion: TpsmmDenseMotionConfig = TpsmmDenseMotionConfig()
    inpainting: TpsmmInpaintingConfig = TpsmmInpaintingConfig()
    background_motion: TpsmmBackgroundConfig | None = TpsmmBackgroundConfig()
    avd: TpsmmAvdConfig | None = None
    transform: TransformConfig = TransformConfig()
    losses: TpsmmLosses = TpsmmLosses()

    @property
    def starts(self) -> dict[str, Start]:
        background = self.background_motion
        if background is None or self.avd is not None:
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
    def predicts_background(self) -> bool:
        return True

    @property
    def field_scale(self) -> float:
        return self.dense_motion.scale

    @property
    def full_width(self) -> int:
        return self.inpainting.width

    @property
    def halvings(self) -> list[Halvings]:
        return [
            hourglass_halvings("motion.dense_motion", self.dense_motion),
            Halvings("motion.inpainting", "num_down_blocks", self.inpainting.num_down_blocks),
        ]


def hourglass_halvings(section: str, hourglass: HourglassConfig) -> Halvings:
    """The halvings of an hourglass network, whose section is `section`."""
    return Halvings(section, "num_blocks", hourglass.num_blocks, hourglass.scale)


def motion_kind(section: Any) -> str:
    """The kind of a section, as a mapping or as an object; fomm where it says none."""
    if isinstance(section, dict):
        return str(section.get("kind", "fomm"))
    return str(getattr(section, "kind", "fomm"))


MotionConfig = Annotated[
    Annotated[FommConfig, Tag("fomm")]
    | Annotated[MonkeyNetConfig, Tag("monkey_net")]
    | Annotated[X2FaceConfig, Tag("x2face")]
    | Annotated[TpsmmConfig, Tag("tpsmm")],
    Discriminator(motion_kind),
]
