"""Outputs of the branches in a training step: one NamedTuple per branch, and one for all."""

from typing import Any, NamedTuple

from torch import Tensor

from modules.keypoint_detector import Keypoints


class MotionMaps(NamedTuple):
    """Motion from the driving frame back to the source, as every kind of motion model has it.

    deformation: B x h x w x 2; where in the source, (x, y) in [-1, 1], a driving pixel comes from.
    occlusion_map: B x 1 x h x w in [0, 1], 1 = visible in the source; None for a model without.
    motion_weights: B x (K+1) x h x w, softmax over candidate motions, the background first; None
        for a model without candidates.
    """

    deformation: Tensor
    occlusion_map: Tensor | None
    motion_weights: Tensor | None

    @property
    def background_weight(self) -> Tensor | None:
        """Weight of the background's motion, B x 1 x h x w; None without candidates."""
        return None if self.motion_weights is None else self.motion_weights[:, :1]


class MotionOutput(NamedTuple):
    """Output of the motion branch.

    source_keypoints, driving_keypoints: keypoints of the two frames; None for a model without.
    motion: motion from the driving frame back to the source.
    prediction: B x 3 x H x W in [0, 1].
    details: what the losses of the branch itself need besides.
    """

    source_keypoints: Keypoints | None
    driving_keypoints: Keypoints | None
    motion: MotionMaps
    prediction: Tensor
    details: Any = None


class DisentanglementOutput(NamedTuple):
    """Output of the second stage of TPSMM, which makes no prediction.

    source_keypoints, driving_keypoints: keypoints of the two frames.
    stretched: the driving keypoints, stretched at random along both axes.
    restored: what the network makes of them: keypoints with the pose of `stretched` and the shape
        of the source.
    """

    source_keypoints: Keypoints
    driving_keypoints: Keypoints
    stretched: Keypoints
    restored: Keypoints


class MaskOutput(NamedTuple):
    """Output of the mask branch.

    source_mask, driving_mask: foreground masks, B x 1 x h x w in [0, 1].
    source_logits, driving_logits: logits of these masks without their border; see
        `MaskGenerator.logits`.
    perturbed_mask, refined_mask: B x 1 x h x w; None before the refinement starts to train.
    low_resolution, high_resolution: predictions of L and H, B x 3 x H x W in [0, 1].
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
    """A figure on another background; all pictures are B x 3 x H x W in [0, 1].

    base, refined: pictures by BGBase and BGRefine.
    foreground: the frame, black outside its figure; an input of BGRefine.
    background: the background picture, black inside its own figure; an input of BGRefine.
    """

    base: Tensor
    refined: Tensor
    foreground: Tensor
    background: Tensor


class BackgroundOutput(NamedTuple):
    """Output of the background branch.

    swap: None before the branch starts to train.
    target: the picture that `swap` should equal, B x 3 x H x W in [0, 1].
    own_target: whether the target may differ from the driving frame, so that its VGG features must
        be computed separately.
    foreground_share: share of the driving frame's pixels that count as figure.
    """

    swap: Swap | None
    target: Tensor
    own_target: bool
    foreground_share: Tensor


class StepOutputs(NamedTuple):
    """Outputs of all branches; None if the model lacks the branch or it has not run yet."""

    motion: MotionOutput | DisentanglementOutput | None = None
    masks: MaskOutput | None = None
    background: BackgroundOutput | None = None
