"""What the sections of all motion models share, and what the rest of the program asks of them."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from configs.section import HourglassConfig, Section, Start
from configs.value_types import (
    Epoch,
    GridSize,
    Positive,
    Probability,
    ReluLayer,
    Weight,
)
from modules.heatmaps import HeatmapStyle

NumDownBlocks = Annotated[int, Field(ge=0, le=10)]  # 0: warps at full resolution


class Halvings(NamedTuple):
    """A network that halves its input `number` times; `number` is the value of `section.key`.

    scale: size of the input, as a part of the image's.
    rest: what the smallest map must have: whole pixels; several of them, since an InstanceNorm
        normalizes over them; or a power of two of them on each side.
    """

    section: str
    key: str
    number: int
    scale: float = 1.0
    rest: Literal["pixels", "several", "power_of_two"] = "pixels"


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
        return HeatmapStyle()

    @property
    @abstractmethod
    def predicts_occlusion(self) -> bool:
        """Whether the model has an occlusion map."""

    @property
    def occlusion_key(self) -> str | None:
        """The dotted key that switches the occlusion map on; None where there is none."""
        return None

    @property
    def predicts_background(self) -> bool:
        """Whether the model gives a motion of the background a weight in each pixel."""
        return True

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

    @property
    def trains_predictions(self) -> bool:
        """Whether a training step makes predictions and learns from them."""
        return True

    @property
    def infinity_limits(self) -> dict[str, float]:
        """By network, the largest element that its gradient may have; others have no such limit."""
        return {}

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


class KeypointPriorConfig(Section):
    """A loss that asks the keypoints to cover what changed between two frames; ours, not in the
    papers. It is meant for clips of a static camera.
    """

    weight: Weight = 0.0  # 0 switches it off
    change_threshold: Probability = 0.1  # a colour that differs by up to this has not changed
    softness: Positive = 0.02  # of the distance to the nearest keypoint, in [-1, 1]^2
    alone_until_epoch: Epoch = 0  # before that, keypoints learn without the reconstruction


class TransformConfig(Section):
    """The random affine and thin-plate transform of the equivariance losses (FOMM, section 3.3)."""

    affine_std: Weight = 0.05
    thin_plate_std: Weight = 0.005
    grid_size: GridSize = 5  # control points a side


def hourglass_halvings(section: str, hourglass: HourglassConfig) -> Halvings:
    """The halvings of an hourglass network, whose section is `section`."""
    return Halvings(section, "num_blocks", hourglass.num_blocks, hourglass.scale)
