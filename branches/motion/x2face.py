"""The motion branch of kind x2face: an embedded face that driving frames sample.

X2Face (Wiles et al., ECCV 2018), its first stage on pairs of frames.
"""

from torch import Tensor

from branches.branch import StepInputs, reconstruction_terms
from branches.motion.branch import EncodedSource, MotionBranch
from branches.outputs import MotionMaps, MotionOutput
from configs.motion.x2face import X2FaceConfig
from losses import LossTerm
from modules.geometry import coordinate_grid
from modules.x2face import (
    DrivingNetwork,
    EmbeddedFace,
    EmbeddingNetwork,
    compose_fields,
    initialize,
    sample_face,
)


class X2FaceBranch(MotionBranch):
    """Moves the source's own pixels; it has neither keypoints nor a generator that paints."""

    kind = "x2face"
    has_keypoints = False
    has_background = False
    takes_several_sources = True

    def __init__(self, config: X2FaceConfig) -> None:
        super().__init__()
        self.losses = config.losses
        embedding, driving = config.embedding, config.driving
        self.embedding = EmbeddingNetwork(
            embedding.width, embedding.max_width, embedding.num_levels, embedding.code
        )
        self.driving = DrivingNetwork(
            driving.width, driving.max_width, driving.num_levels, driving.code
        )
        initialize(self)

    def detect(self, frames: Tensor) -> Tensor:
        """Where in the embedded face the pixels of `frames` lie: B x H x W x 2."""
        field: Tensor = self.driving(frames)
        return field

    def encode(self, source: Tensor) -> EncodedSource:
        """Embed one or several source frames of a person, N x 3 x H x W in [0, 1]."""
        face: EmbeddedFace = self.embedding(source.unsqueeze(0))
        return EncodedSource(source, None, face)

    def estimate_motion(
        self, source: EncodedSource, pose: Tensor, driving: Tensor | None = None
    ) -> MotionMaps:
        """The motion from the first source frame."""
        field = source.features.field.expand(len(pose), -1, -1, -1, -1)
        return MotionMaps(compose_fields(field, pose)[:, 0], None, None)

    def predict(self, source: EncodedSource, pose: Tensor, driving: Tensor | None = None) -> Tensor:
        return sample_face(source.features, pose)

    def forward(self, inputs: StepInputs) -> MotionOutput:
        face: EmbeddedFace = self.embedding(inputs.source.unsqueeze(1))
        field = self.detect(inputs.driving)
        motion = MotionMaps(compose_fields(face.field, field)[:, 0], None, None)
        return MotionOutput(None, None, motion, sample_face(face, field))

    def statistics(self, output: MotionOutput) -> dict[str, Tensor]:
        """`field_shift`: how far pixels come from, on average; near 0 the source stays as it is."""
        field = output.motion.deformation
        grid = coordinate_grid(field.shape[1], field.shape[2], field)
        return super().statistics(output) | {"field_shift": (field - grid).norm(dim=-1).mean()}

    def loss_terms(self, inputs: StepInputs, output: MotionOutput) -> dict[str, LossTerm]:
        return reconstruction_terms(
            {"": output.prediction},
            inputs.driving,
            inputs.target_features,
            inputs.perceptual,
            self.losses,
        )
