"""The motion branch: keypoints, dense motion with occlusion, generator (FOMM)."""

from typing import NamedTuple

import torch
from torch import Tensor

from branches.branch import Branch, StepInputs, reconstruction_terms
from branches.outputs import MotionOutput
from configs.schema import MotionConfig
from configs.section import HourglassConfig
from losses import (
    LossTerm,
    equivariance_jacobian_loss,
    equivariance_value_loss,
    weigh,
)
from media.visualization import colorize_weights, draw_keypoints, grey_to_rgb
from modules.dense_motion import DenseMotion, DenseMotionNetwork
from modules.generator import Generator
from modules.geometry import determinant_2x2, resize_grid, warp
from modules.keypoint_detector import KeypointDetector, Keypoints
from modules.keypoint_transfer import expand_keypoints
from modules.thin_plate import random_thin_plate


class EncodedSource(NamedTuple):
    """Everything that the motion branch computes from the source alone (batch 1).

    image: 1 x 3 x H x W in [0, 1]. features: encoder features of the generator.
    """

    image: Tensor
    keypoints: Keypoints
    features: Tensor


def _hourglass(config: HourglassConfig) -> dict[str, int]:
    return {
        "width": config.width,
        "max_width": config.max_width,
        "num_blocks": config.num_blocks,
    }


class MotionBranch(Branch[MotionOutput]):
    """Moves the source by the keypoints of both frames and inpaints hidden areas (FOMM)."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        detector, motion, generator = (
            config.keypoint_detector,
            config.dense_motion,
            config.generator,
        )
        self.losses = config.losses
        self.transform = config.transform
        self.keypoint_detector = KeypointDetector(
            **_hourglass(detector),
            scale=detector.scale,
            num_keypoints=detector.num_keypoints,
            jacobian=detector.jacobian,
            temperature=detector.temperature,
        )
        self.dense_motion = DenseMotionNetwork(
            **_hourglass(motion),
            scale=motion.scale,
            num_keypoints=detector.num_keypoints,
            heatmap_variance=motion.heatmap_variance,
            occlusion=motion.occlusion,
        )
        self.generator = Generator(
            width=generator.width,
            max_width=generator.max_width,
            num_down_blocks=generator.num_down_blocks,
            num_res_blocks=generator.num_res_blocks,
        )

    def detect(self, frames: Tensor) -> Keypoints:
        """Keypoints of `frames`, B x 3 x H x W in [0, 1]."""
        keypoints: Keypoints = self.keypoint_detector(frames)
        return keypoints

    def encode(self, source: Tensor) -> EncodedSource:
        """Compute what depends on `source`, 1 x 3 x H x W in [0, 1], alone."""
        return EncodedSource(source, self.detect(source), self.generator.encode(source))

    def estimate_motion(
        self, source: Tensor, source_keypoints: Keypoints, keypoints: Keypoints
    ) -> DenseMotion:
        """Dense motion from one source, 1 x 3 x H x W, to each of B `keypoints`."""
        batch = len(keypoints.value)
        motion: DenseMotion = self.dense_motion(
            source.expand(batch, -1, -1, -1), expand_keypoints(source_keypoints, batch), keypoints
        )
        return motion

    def predict(self, source: EncodedSource, keypoints: Keypoints) -> Tensor:
        """Move the source to each of B `keypoints`: B x 3 x H x W in [0, 1]."""
        motion = self.estimate_motion(source.image, source.keypoints, keypoints)
        features = source.features.expand(len(keypoints.value), -1, -1, -1)
        return self.generator.decode(features, motion)

    def forward(self, inputs: StepInputs) -> MotionOutput:
        source_keypoints = self.detect(inputs.source)
        driving_keypoints = self.detect(inputs.driving)
        motion = self.dense_motion(inputs.source, source_keypoints, driving_keypoints)
        prediction = self.generator(inputs.source, motion)
        return MotionOutput(source_keypoints, driving_keypoints, motion, prediction)

    def loss_terms(self, inputs: StepInputs, output: MotionOutput) -> dict[str, LossTerm]:
        weights = self.losses
        terms = reconstruction_terms(
            {"": output.prediction},
            inputs.driving,
            inputs.target_features,
            inputs.perceptual,
            weights,
        )
        if weights.equivariance_value or weights.equivariance_jacobian:
            transform = random_thin_plate(
                len(inputs.driving),
                self.transform.affine_std,
                self.transform.thin_plate_std,
                self.transform.grid_size,
                inputs.context.random,
            )
            transformed = self.detect(transform.frame(inputs.driving))
            pair = (output.driving_keypoints, transformed, transform)
            if weights.equivariance_value:
                value = equivariance_value_loss(*pair)
                terms["equivariance_value"] = weigh(value, weights.equivariance_value)
            if weights.equivariance_jacobian:
                value = equivariance_jacobian_loss(*pair)
                terms["equivariance_jacobian"] = weigh(value, weights.equivariance_jacobian)
        return terms

    def statistics(self, output: MotionOutput) -> dict[str, Tensor]:
        """Scalars that show a collapse early: keypoints on one spot (spread near 0), keypoints that
        do not follow the frame (shift near 0), everything background, or everything occluded.

        `smallest_determinant` is the smallest |det J| of both frames: near 0 the inverse of a
        Jacobian, and with it the gradients, become huge.
        """
        points = output.driving_keypoints.value
        shift = (points - output.source_keypoints.value).norm(dim=-1)
        statistics = {
            "keypoint_spread": points.std(dim=1, correction=0).mean(),
            "keypoint_shift": shift.mean(),
            "background_weight": output.motion.motion_weights[:, 0].mean(),
        }
        if output.motion.occlusion_map is not None:
            statistics["occlusion_mean"] = output.motion.occlusion_map.mean()
        jacobians = (output.source_keypoints.jacobian, output.driving_keypoints.jacobian)
        smallest = [determinant_2x2(j).abs().amin() for j in jacobians if j is not None]
        if smallest:
            statistics["smallest_determinant"] = torch.stack(smallest).amin()
        return statistics

    def pictures(self, inputs: StepInputs, output: MotionOutput) -> dict[str, Tensor]:
        size = (inputs.source.shape[-2], inputs.source.shape[-1])
        warped = warp(inputs.source, resize_grid(output.motion.deformation, size))
        pictures = {
            "source": draw_keypoints(inputs.source, output.source_keypoints.value),
            "driving": draw_keypoints(inputs.driving, output.driving_keypoints.value),
            "warped source": warped,
        }
        if output.motion.occlusion_map is not None:
            pictures["occlusion map"] = grey_to_rgb(output.motion.occlusion_map, size)
        pictures["motion weights"] = colorize_weights(output.motion.motion_weights, size)
        pictures["prediction"] = output.prediction
        return pictures
