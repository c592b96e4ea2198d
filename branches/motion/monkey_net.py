"""The motion branch of kind monkey_net: keypoints with a covariance, translations, warping U-Net.

Monkey-Net (Siarohin et al., CVPR 2019).
"""

from torch import Tensor

from branches.branch import StepInputs, reconstruction_terms
from branches.motion.branch import (
    EncodedSource,
    expand_maps,
    hourglass_sizes,
    keypoint_prior_terms,
    keypoints_alone,
    reconstruction_gradient,
)
from branches.motion.dense_motion_branch import DenseMotionBranch
from branches.outputs import MotionMaps, MotionOutput
from configs.motion.monkey_net import MonkeyNetConfig
from losses import LossTerm, pixel_loss, weigh
from modules.dense_motion import DenseMotion
from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import expand_keypoints
from modules.monkey_net.dense_motion import MonkeyNetDenseMotion
from modules.monkey_net.generator import MonkeyNetGenerator
from modules.monkey_net.keypoint_detector import MonkeyNetKeypointDetector
from modules.monkey_net.keypoint_transfer import transferred_keypoints

NUM_GROUP_BLOCKS = 2  # published


class MonkeyNetBranch(DenseMotionBranch):
    """Moves the source by the shifts of its keypoints and warps every map of a U-Net by them."""

    kind = "monkey_net"
    keypoint_detector: MonkeyNetKeypointDetector
    dense_motion: MonkeyNetDenseMotion

    def __init__(self, config: MonkeyNetConfig) -> None:
        super().__init__()
        detector, motion, generator = (
            config.keypoint_detector,
            config.dense_motion,
            config.generator,
        )
        self.losses, self.prior = config.losses, config.prior
        self.keypoint_detector = MonkeyNetKeypointDetector(
            **hourglass_sizes(detector),
            scale=detector.scale,
            num_keypoints=detector.num_keypoints,
            temperature=detector.temperature,
            min_singular_value=detector.min_variance,
        )
        self.dense_motion = MonkeyNetDenseMotion(
            **hourglass_sizes(motion),
            scale=motion.scale,
            num_keypoints=detector.num_keypoints,
            heatmap_norm=config.heatmap_divisor,
            num_group_blocks=NUM_GROUP_BLOCKS,
            use_difference=motion.use_difference,
            occlusion=motion.occlusion,
        )
        self.generator = MonkeyNetGenerator(
            width=generator.width,
            max_width=generator.max_width,
            num_blocks=generator.num_blocks,
            num_refinement_blocks=generator.num_res_blocks,
            num_keypoints=detector.num_keypoints,
            heatmap_scale=motion.scale,
            heatmap_norm=config.heatmap_divisor,
            interpolation=generator.interpolation,
        )

    def encode(self, source: Tensor) -> EncodedSource:
        return EncodedSource(source, self.detect(source), self.generator.encode(source))

    def relative_pose(
        self, source: Keypoints, driving: Keypoints, reference: Keypoints, scale: float
    ) -> Keypoints:
        return transferred_keypoints(source, driving, reference, scale)

    def predict(
        self, source: EncodedSource, pose: Keypoints, driving: Tensor | None = None
    ) -> Tensor:
        assert source.keypoints is not None
        batch = len(pose.value)
        return self.generator.decode(
            expand_maps(source.features, batch),
            self._dense_motion(source, pose),
            expand_keypoints(source.keypoints, batch),
            pose,
        )

    def forward(self, inputs: StepInputs) -> MotionOutput:
        keypoints = self.detect(inputs.source), self.detect(inputs.driving)
        with reconstruction_gradient(self.prior, inputs):
            motion: DenseMotion = self.dense_motion(inputs.source, *keypoints)
            prediction = self.generator(inputs.source, motion, *keypoints)
        return MotionOutput(*keypoints, MotionMaps(*motion), prediction, motion)

    def loss_terms(self, inputs: StepInputs, output: MotionOutput) -> dict[str, LossTerm]:
        terms = keypoint_prior_terms(self.prior, inputs, output)
        if not keypoints_alone(self.prior, inputs):
            terms |= reconstruction_terms(
                {"": output.prediction},
                inputs.driving,
                inputs.target_features,
                inputs.perceptual,
                self.losses,
            )
            if self.losses.deformed:
                warped = self.generator.warp(inputs.source, output.details)
                value = pixel_loss(warped, inputs.driving)
                terms["deformed"] = weigh(value, self.losses.deformed)
        return terms
