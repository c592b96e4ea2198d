"""What FOMM and Monkey-Net share: keypoints of both frames become a dense motion of the source."""

from torch import Tensor, nn

from branches.motion.branch import EncodedSource, MotionBranch
from branches.outputs import MotionMaps
from modules.dense_motion import DenseMotion
from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import expand_keypoints


class DenseMotionBranch(MotionBranch):
    """A motion branch that estimates motion from the source and two sets of keypoints alone.

    Attributes:
        keypoint_detector: B x 3 x H x W in [0, 1] -> `Keypoints`.
        dense_motion: source, its keypoints, driving keypoints -> `DenseMotion`.
    """

    keypoint_detector: nn.Module
    dense_motion: nn.Module

    def detect(self, frames: Tensor) -> Keypoints:
        """Detect the keypoints of `frames`, B x 3 x H x W in [0, 1]."""
        keypoints: Keypoints = self.keypoint_detector(frames)
        return keypoints

    def estimate_motion(
        self, source: EncodedSource, pose: Keypoints, driving: Tensor | None = None
    ) -> MotionMaps:
        return MotionMaps(*self._dense_motion(source, pose))

    def _dense_motion(self, source: EncodedSource, pose: Keypoints) -> DenseMotion:
        """Motion from one source to each of B poses."""
        assert source.keypoints is not None
        batch = len(pose.value)
        motion: DenseMotion = self.dense_motion(
            source.image.expand(batch, -1, -1, -1), expand_keypoints(source.keypoints, batch), pose
        )
        return motion
