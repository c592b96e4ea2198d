"""The motion branch of kind fomm: keypoints with Jacobians, dense motion with occlusion, generator.

First Order Motion Model (Siarohin et al., NeurIPS 2019).
"""

import torch
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
from configs.motion.fomm import FommConfig
from losses import (
    LossTerm,
    equivariance_jacobian_loss,
    equivariance_value_loss,
    pixel_loss,
    visibility_loss,
    weigh,
)
from modules.dense_motion import DenseMotion, DenseMotionNetwork
from modules.generator import GeneratedFrame, Generator
from modules.geometry import determinant_2x2
from modules.keypoint_detector import KeypointDetector, Keypoints
from modules.thin_plate import random_thin_plate


class FommBranch(DenseMotionBranch):
    """Moves the source by the keypoints of both frames and inpaints hidden areas (FOMM)."""

    kind = "fomm"
    keypoint_detector: KeypointDetector
    dense_motion: DenseMotionNetwork

    def __init__(self, config: FommConfig) -> None:
        super().__init__()
        detector, motion, generator = (
            config.keypoint_detector,
            config.dense_motion,
            config.generator,
        )
        self.losses = config.losses
        self.transform, self.prior = config.transform, config.prior
        self.keypoint_detector = KeypointDetector(
            **hourglass_sizes(detector),
            scale=detector.scale,
            num_keypoints=detector.num_keypoints,
            jacobian=detector.jacobian,
            temperature=detector.temperature,
        )
        self.dense_motion = DenseMotionNetwork(
            **hourglass_sizes(motion),
            scale=motion.scale,
            num_keypoints=detector.num_keypoints,
            heatmap_variance=motion.heatmap_variance,
            occlusion=motion.occlusion,
            heatmap_start=motion.heatmap_start,
        )
        self.generator = Generator(
            width=generator.width,
            max_width=generator.max_width,
            num_down_blocks=generator.num_down_blocks,
            num_res_blocks=generator.num_res_blocks,
            skip=generator.skip,
        )

    def encode(self, source: Tensor) -> EncodedSource:
        return EncodedSource(source, self.detect(source), self.generator.encode(source))

    def predict(
        self, source: EncodedSource, pose: Keypoints, driving: Tensor | None = None
    ) -> Tensor:
        image, features = expand_maps((source.image, source.features), len(pose.value))
        motion = self._dense_motion(source, pose)
        return self.generator.generate(image, features, motion).prediction

    def forward(self, inputs: StepInputs) -> MotionOutput:
        source_keypoints = self.detect(inputs.source)
        driving_keypoints = self.detect(inputs.driving)
        with reconstruction_gradient(self.prior, inputs):
            motion: DenseMotion = self.dense_motion(
                inputs.source, source_keypoints, driving_keypoints
            )
            generated: GeneratedFrame = self.generator(inputs.source, motion)
        maps, prediction = MotionMaps(*motion), generated.prediction
        return MotionOutput(source_keypoints, driving_keypoints, maps, prediction, generated)

    def loss_terms(self, inputs: StepInputs, output: MotionOutput) -> dict[str, LossTerm]:
        weights = self.losses
        terms = keypoint_prior_terms(self.prior, inputs, output)
        if not keypoints_alone(self.prior, inputs):
            terms |= self._reconstruction_terms(inputs, output)
        if weights.equivariance_value or weights.equivariance_jacobian:
            transform = random_thin_plate(
                len(inputs.driving),
                self.transform.affine_std,
                self.transform.thin_plate_std,
                self.transform.grid_size,
                inputs.context.random,
            )
            transformed = self.detect(transform.frame(inputs.driving))
            assert output.driving_keypoints is not None
            pair = (output.driving_keypoints, transformed, transform)
            if weights.equivariance_value:
                value = equivariance_value_loss(*pair)
                terms["equivariance_value"] = weigh(value, weights.equivariance_value)
            if weights.equivariance_jacobian:
                value = equivariance_jacobian_loss(*pair)
                terms["equivariance_jacobian"] = weigh(value, weights.equivariance_jacobian)
        return terms

    def _reconstruction_terms(
        self, inputs: StepInputs, output: MotionOutput
    ) -> dict[str, LossTerm]:
        weights = self.losses
        generated: GeneratedFrame = output.details
        terms = reconstruction_terms(
            {"": output.prediction},
            inputs.driving,
            inputs.target_features,
            inputs.perceptual,
            weights,
        )
        if weights.decoded:
            value = pixel_loss(generated.decoded, inputs.driving)
            terms["decoded"] = weigh(value, weights.decoded)
        if weights.visibility:
            assert generated.warped is not None
            assert output.motion.occlusion_map is not None
            value = visibility_loss(
                output.motion.occlusion_map, generated.warped, generated.decoded, inputs.driving
            )
            terms["visibility"] = weigh(value, weights.visibility)
        return terms

    def statistics(self, output: MotionOutput) -> dict[str, Tensor]:
        """Scalars that show a collapse early, and the smallest |det J| of both frames.

        A Jacobian that is nearly singular makes gradients huge.
        """
        statistics = super().statistics(output)
        keypoints = (output.source_keypoints, output.driving_keypoints)
        jacobians = [k.jacobian for k in keypoints if k is not None]
        smallest = [determinant_2x2(j).abs().amin() for j in jacobians if j is not None]
        if smallest:
            statistics["smallest_determinant"] = torch.stack(smallest).amin()
        return statistics
