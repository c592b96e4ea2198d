"""The section motion of kind x2face: X2Face (Wiles et al., ECCV 2018)."""

from typing import Annotated, Literal

from pydantic import Field

from configs.motion.section import (
    Halvings,
    MotionSection,
)
from configs.section import Section
from configs.value_types import (
    ReluLayer,
    Weight,
    Width,
)

NumLevels = Annotated[int, Field(ge=4, le=11)]  # of a network down to 1 x 1 pixel


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
            Halvings(f"motion.{name}", "num_levels", network.num_levels, rest="power_of_two")
            for name, network in (("embedding", self.embedding), ("driving", self.driving))
        ]
