"""What the branches compute in a training step: one record for each, and all of them together."""

from typing import NamedTuple

from torch import Tensor

from modules.dense_motion import DenseMotion
from modules.keypoint_detector import Keypoints


class MotionOutput(NamedTuple):
    """source_keypoints, driving_keypoints: of the two frames. prediction: B x 3 x H x W."""

    source_keypoints: Keypoints
    driving_keypoints: Keypoints
    motion: DenseMotion
    prediction: Tensor


class MaskOutput(NamedTuple):
    """source_mask, driving_mask: B x 1 x h x w. The logits are theirs, without their border.

    perturbed_mask, refined_mask: B x 1 x h x w; None before the refinement starts.
    low_resolution, high_resolution: predictions, B x 3 x H x W.
    """

    source_mask: Tensor
    driving_mask: Tensor
    source_logits: Tensor
    driving_logits: Tensor
    perturbed_mask: Tensor | None
    refined_mask: Tensor | None
    low_resolution: Tensor
    high_resolution: Tensor


class Swap(NamedTuple):
    """base, refined: BGBase's and BGRefine's pictures, B x 3 x H x W in [0, 1].

    foreground, background: what BGRefine saw of the two frames, B x 3 x H x W.
    """

    base: Tensor
    refined: Tensor
    foreground: Tensor
    background: Tensor


class BackgroundOutput(NamedTuple):
    """swap: None before the branch starts. target: B x 3 x H x W, what it should be.

    own_target: the target is not the driving frame, so its features are still to be computed.
    foreground_share: of the driving frame, after the threshold.
    """

    swap: Swap | None
    target: Tensor
    own_target: bool
    foreground_share: Tensor


class StepOutputs(NamedTuple):
    """Outputs of the branches; None for a branch that the model lacks or that has not run yet."""

    motion: MotionOutput | None = None
    masks: MaskOutput | None = None
    background: BackgroundOutput | None = None
