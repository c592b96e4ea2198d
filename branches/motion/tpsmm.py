"""The motion branch of kind tpsmm: thin plates, the background's motion, inpainting at all scales.

Thin-Plate Spline Motion Model (Zhao and Zhang, CVPR 2022).
"""

from typing import NamedTuple, Self

from torch import Tensor

from branches.branch import StepInputs, reconstruction_terms
from branches.motion.branch import (
    EncodedSource,
    MotionBranch,
    MotionMode,
    expand_maps,
    hourglass_sizes,
    keypoint_prior_terms,
    keypoints_alone,
    reconstruction_gradient,
)
from branches.outputs import MotionMaps, MotionOutput
from configs.motion.tpsmm import TpsmmConfig
from losses import LossTerm, background_loss, equivariance_value_loss, warp_loss, weigh
from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import expand_keypoints
from modules.thin_plate import random_thin_plate
from modules.tpsmm.avd import AVDNetwork
from modules.tpsmm.background_predictor import BackgroundPredictor
from modules.tpsmm.dense_motion import (
    ThinPlateMotion,
    ThinPlateMotionNetwork,
    kept_plates,
    plate_dropout,
)
from modules.tpsmm.inpainting import InpaintingNetwork
from modules.tpsmm.keypoint_detector import GroupedKeypointDetector


class TpsmmDetails(NamedTuple):
    """What the losses need besides `MotionOutput`.

    features: maps of the source, as the inpainting network encodes it.
    background: affine motion of the background, B x 3 x 3; None while it has not started.
    """

    motion: ThinPlateMotion
    features: list[Tensor]
    background: Tensor | None


class TpsmmBranch(MotionBranch):
    """Bends the source by thin plates and inpaints hidden areas at every scale.

    With the network `avd`, which the second stage trains, all others are frozen.
    """

    kind = "tpsmm"
    always_adapts_scale = True

    def __init__(self, config: TpsmmConfig) -> None:
        super().__init__()
        motion, inpainting = config.dense_motion, config.inpainting
        self.losses = config.losses
        self.transform, self.prior = config.transform, config.prior
        self.dropout = motion.dropout
        self.num_plates = config.keypoint_detector.num_plates
        self.keypoint_detector = GroupedKeypointDetector(self.num_plates)
        self.dense_motion = ThinPlateMotionNetwork(
            **hourglass_sizes(motion),
            scale=motion.scale,
            num_plates=self.num_plates,
            heatmap_variance=motion.heatmap_variance,
            num_occlusion_maps=inpainting.num_down_blocks + 1,
        )
        self.inpainting = InpaintingNetwork(
            inpainting.width, inpainting.max_width, inpainting.num_down_blocks
        )
        self.background_motion: BackgroundPredictor | None = None
        if config.background_motion is not None:
            self.background_motion = BackgroundPredictor()
        self.avd: AVDNetwork | None = None
        if config.avd is not None:
            self.requires_grad_(False)
            self.avd = AVDNetwork(config.num_keypoints, config.avd.code, config.avd.code)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode. Frozen networks always evaluate, so that their statistics stay."""
        super().train(mode)
        if self.avd is not None:
            for network in self.children():
                network.train(mode and network is self.avd)
        return self

    @property
    def modes(self) -> tuple[MotionMode, ...]:
        return super().modes if self.avd is None else (*super().modes, "avd")

    def detect(self, frames: Tensor) -> Keypoints:
        """Detect the keypoints of `frames`, B x 3 x H x W in [0, 1]."""
        keypoints: Keypoints = self.keypoint_detector(frames)
        return keypoints

    def encode(self, source: Tensor) -> EncodedSource:
        return EncodedSource(source, self.detect(source), self.inpainting.encode(source))

    def disentangled_pose(self, source: Keypoints, driving: Keypoints) -> Keypoints:
        assert self.avd is not None, "it is not among the modes"
        pose: Keypoints = self.avd(expand_keypoints(source, len(driving.value)), driving)
        return pose

    def estimate_motion(
        self, source: EncodedSource, pose: Keypoints, driving: Tensor | None = None
    ) -> MotionMaps:
        return _maps(self._dense_motion(source, pose, driving))

    def predict(
        self, source: EncodedSource, pose: Keypoints, driving: Tensor | None = None
    ) -> Tensor:
        motion = self._dense_motion(source, pose, driving)
        return self.inpainting.decode(expand_maps(source.features, len(pose.value)), motion)

    def _dense_motion(
        self, source: EncodedSource, pose: Keypoints, driving: Tensor | None
    ) -> ThinPlateMotion:
        assert source.keypoints is not None
        batch = len(pose.value)
        image = source.image.expand(batch, -1, -1, -1)
        background = None
        if driving is not None and self.background_motion is not None:
            background = self.background_motion(image, driving)
        motion: ThinPlateMotion = self.dense_motion(
            image, expand_keypoints(source.keypoints, batch), pose, background
        )
        return motion

    def forward(self, inputs: StepInputs) -> MotionOutput:
        source, driving = inputs.source, inputs.driving
        keypoints = self.detect(source), self.detect(driving)
        background = None
        waiting = "motion.background_motion" in inputs.context.waiting
        if self.background_motion is not None and not waiting:
            background = self.background_motion(source, driving)
        with reconstruction_gradient(self.prior, inputs):
            motion: ThinPlateMotion = self.dense_motion(
                source, *keypoints, background, self._kept_plates(inputs)
            )
            features = self.inpainting.encode(source)
            prediction = self.inpainting.decode(features, motion)
        details = TpsmmDetails(motion, features, background)
        return MotionOutput(*keypoints, _maps(motion), prediction, details)

    def _kept_plates(self, inputs: StepInputs) -> Tensor | None:
        """Which plates of each sample move pixels in this step, B x K; None for all."""
        dropout = self.dropout
        probability = plate_dropout(
            int(inputs.context.epoch),
            dropout.start,
            dropout.highest,
            dropout.increase_epochs,
            dropout.until_epoch,
        )
        if not (self.training and probability):
            return None
        uniform = inputs.context.random.uniform(len(inputs.source), self.num_plates)
        return kept_plates(uniform, probability)

    def loss_terms(self, inputs: StepInputs, output: MotionOutput) -> dict[str, LossTerm]:
        weights = self.losses
        details: TpsmmDetails = output.details
        terms = keypoint_prior_terms(self.prior, inputs, output)
        is_reconstructing = not keypoints_alone(self.prior, inputs)
        if is_reconstructing:
            terms |= reconstruction_terms(
                {"": output.prediction},
                inputs.driving,
                inputs.target_features,
                inputs.perceptual,
                weights,
            )
        if weights.equivariance_value:
            transform = random_thin_plate(
                len(inputs.driving),
                self.transform.affine_std,
                self.transform.thin_plate_std,
                self.transform.grid_size,
                inputs.context.random,
                "euclidean",
            )
            transformed = self.detect(transform.frame(inputs.driving))
            assert output.driving_keypoints is not None
            value = equivariance_value_loss(output.driving_keypoints, transformed, transform)
            terms["equivariance_value"] = weigh(value, weights.equivariance_value)
        if weights.warp and is_reconstructing:
            warped = self.inpainting.warped_features(details.features, details.motion)
            driving = self.inpainting.driving_features(inputs.driving, details.motion)
            terms["warp"] = weigh(warp_loss(warped, driving), weights.warp)
        if weights.background and details.background is not None:
            assert self.background_motion is not None
            back = self.background_motion(inputs.driving, inputs.source)
            terms["background"] = weigh(
                background_loss(details.background, back), weights.background
            )
        return terms


def _maps(motion: ThinPlateMotion) -> MotionMaps:
    return MotionMaps(motion.deformation, motion.occlusion_map, motion.motion_weights)
