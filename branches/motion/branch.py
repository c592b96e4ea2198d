"""Interface of the motion branch, whatever its kind: detect, encode, predict.

Animation, evaluation, pictures and the discriminator use this and `MotionOutput` alone. The kinds
are in the files beside this one; `build.py` chooses one by `motion.kind`.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from branches.branch import Branch, StepInputs
from branches.outputs import MotionMaps, MotionOutput
from configs.motion.section import KeypointPriorConfig
from configs.section import HourglassConfig
from losses import LossTerm, keypoint_prior_loss, picture_change, weigh
from media.visualization import colorize_weights, draw_keypoints, grey_to_rgb
from modules.geometry import resize_grid, scaled_size, warp
from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import relative_keypoints

MotionMode = Literal["relative", "absolute", "avd"]
MOTION_MODES: tuple[MotionMode, ...] = get_args(MotionMode)

_PRIOR_SIZE = 32  # pixels of the longer side, enough to say which keypoint is near


class EncodedSource(NamedTuple):
    """A source as the motion branch needs it for every driving frame (batch 1).

    image: 1 x 3 x H x W in [0, 1]; N x 3 x H x W for N images of one figure.
    keypoints: those of the source; None for a model without keypoints.
    features: what the generator has made of the source; each kind has its own type.
    """

    image: Tensor
    keypoints: Keypoints | None
    features: Any


class MotionBranch(Branch[MotionOutput]):
    """Moves a source image by driving frames.

    Attributes:
        kind: the name in the config.
        has_keypoints: whether `detect` returns keypoints. Without them there is no relative motion,
            no smoothing of the motion and no choice of a reference frame.
        has_background: whether `MotionMaps` has a weight of the background.
        always_adapts_scale: relative motion is always scaled by the sizes of the two figures.
        takes_several_sources: `encode` takes several images of one figure.
    """

    kind: ClassVar[str]
    has_keypoints: ClassVar[bool] = True
    has_background: ClassVar[bool] = True
    always_adapts_scale: ClassVar[bool] = False
    takes_several_sources: ClassVar[bool] = False

    @property
    def modes(self) -> tuple[MotionMode, ...]:
        """The ways in which driving frames can move a source, the default first."""
        return ("relative", "absolute") if self.has_keypoints else ("absolute",)

    @abstractmethod
    def detect(self, frames: Tensor) -> Any:
        """What moves the source as in `frames`, B x 3 x H x W in [0, 1].

        These are `Keypoints` for a model that has them, else whatever `predict` takes.
        """

    @abstractmethod
    def encode(self, source: Tensor) -> EncodedSource:
        """Encode `source`, 1 x 3 x H x W in [0, 1]; N x 3 x H x W, N images of one figure, if the
        model takes several.
        """

    @abstractmethod
    def estimate_motion(
        self, source: EncodedSource, pose: Any, driving: Tensor | None = None
    ) -> MotionMaps:
        """Motion from one source to each of B poses, which `detect` returned.

        Args:
            driving: the frames of the poses, B x 3 x H x W, if they show the source's own scene:
                a model that knows the camera's motion applies it. None: it stands still.
        """

    @abstractmethod
    def predict(self, source: EncodedSource, pose: Any, driving: Tensor | None = None) -> Tensor:
        """The source moved to each of B poses, B x 3 x H x W in [0, 1]; see `estimate_motion`."""

    def relative_pose(
        self, source: Keypoints, driving: Keypoints, reference: Keypoints, scale: float
    ) -> Keypoints:
        """The source's keypoints moved as the driving ones moved since the reference frame."""
        return relative_keypoints(source, driving, reference, scale)

    def disentangled_pose(self, source: Keypoints, driving: Keypoints) -> Keypoints:
        """The pose of `driving`, of any batch, on the shape of `source` (batch 1); only where
        `modes` has avd.
        """
        raise NotImplementedError(f"a motion model of kind {self.kind} has no motion avd")

    def statistics(self, output: MotionOutput) -> dict[str, Tensor]:
        """Scalars that show a collapse early.

        Signs of it are keypoints on one spot, keypoints that no longer follow the frame, everything
        background, or everything occluded.
        """
        statistics = {}
        if output.source_keypoints is not None and output.driving_keypoints is not None:
            points = output.driving_keypoints.value
            shift = (points - output.source_keypoints.value).norm(dim=-1)
            statistics["keypoint_spread"] = points.std(dim=1, correction=0).mean()
            statistics["keypoint_shift"] = shift.mean()
        if output.motion.background_weight is not None:
            statistics["background_weight"] = output.motion.background_weight.mean()
        if output.motion.occlusion_map is not None:
            statistics["occlusion_mean"] = output.motion.occlusion_map.mean()
        return statistics

    def pictures(
        self, inputs: StepInputs, output: MotionOutput, num_rows: int
    ) -> dict[str, Tensor]:
        size = (inputs.source.shape[-2], inputs.source.shape[-1])
        warped = warp(inputs.source, resize_grid(output.motion.deformation, size))
        pictures = {
            "source": _with_keypoints(inputs.source, output.source_keypoints),
            "driving": _with_keypoints(inputs.driving, output.driving_keypoints),
            "warped source": warped,
        }
        if output.motion.occlusion_map is not None:
            pictures["occlusion map"] = grey_to_rgb(output.motion.occlusion_map, size)
        if output.motion.motion_weights is not None:
            pictures["motion weights"] = colorize_weights(output.motion.motion_weights, size)
        pictures["prediction"] = output.prediction
        return pictures


def hourglass_sizes(config: HourglassConfig) -> dict[str, int]:
    """The sizes of an hourglass, as the networks' constructors name them."""
    return {
        "width": config.width,
        "max_width": config.max_width,
        "num_blocks": config.num_blocks,
    }


def keypoints_alone(prior: KeypointPriorConfig, inputs: StepInputs) -> bool:
    """Whether the keypoints learn alone in this step. Networks that reconstruct from keypoints that
    are not yet where they belong learn to move everything by a few of them.
    """
    return prior.weight > 0 and inputs.context.epoch < prior.alone_until_epoch


@contextmanager
def reconstruction_gradient(prior: KeypointPriorConfig, inputs: StepInputs) -> Iterator[None]:
    """Within it, what follows from the keypoints has no gradient while they learn alone. So no
    loss trains the other networks, and the discriminator does not either.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled() and not keypoints_alone(prior, inputs)):
        yield


def keypoint_prior_terms(
    prior: KeypointPriorConfig, inputs: StepInputs, output: MotionOutput
) -> dict[str, LossTerm]:
    """The loss of the keypoint prior for the keypoints of both frames, if it is switched on."""
    if not prior.weight:
        return {}
    scale = min(1.0, _PRIOR_SIZE / max(inputs.source.shape[-2:]))
    height, width = scaled_size(inputs.source, scale)
    size = (max(1, height), max(1, width))  # of a picture far longer than wide, too
    changed = picture_change(inputs.source, inputs.driving, size) > prior.change_threshold
    assert output.source_keypoints is not None
    assert output.driving_keypoints is not None
    value = keypoint_prior_loss(output.source_keypoints, changed, prior.softness)
    value = value + keypoint_prior_loss(output.driving_keypoints, changed, prior.softness)
    return {"keypoint_prior": weigh(value, prior.weight)}


def expand_maps(maps: Sequence[Tensor], batch: int) -> list[Tensor]:
    """Repeat feature maps of one source for `batch` frames, as views without a copy."""
    return [map_.expand(batch, *map_.shape[1:]) for map_ in maps]


def _with_keypoints(frames: Tensor, keypoints: Keypoints | None) -> Tensor:
    return frames if keypoints is None else draw_keypoints(frames, keypoints.value)
