"""The plain training step, as the published programs compute it: each optimization can be undone.

With or without an optimization, the step computes the same numbers, up to rounding and to the
number of power iterations of spectral norm.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

import losses
from branches import background, masks
from branches.branch import ReconstructionLosses, StepInputs
from branches.motion import fomm, monkey_net, tpsmm, x2face
from branches.outputs import MotionOutput
from checkpoints.perceptual_weights import load_vgg
from common.speed_trial import HALF_DTYPES
from configs.motion.fomm import FommConfig
from configs.motion.tpsmm import TpsmmConfig
from configs.motion.x2face import X2FaceConfig
from configs.schema import Config
from losses import (
    LossTerm,
    Perceptual,
    PyramidFeatures,
    build_perceptual,
    perceptual_layers,
    pixel_loss,
    used_layers,
    weigh,
)
from modules import blocks, heatmaps
from modules.blocks import AntiAliasDownsample
from modules.geometry import coordinate_grid, full_precision, warp
from modules.keypoint_detector import detached
from modules.thin_plate import ThinPlateTransform
from modules.vgg import VGGFeatures
from training import adversary
from training import trainer as training
from training.acceleration import prepare_networks
from training.adversary import AdversarialOutputs, Adversary
from training.optimization import Optimizer
from training.trainer import Trainer

DEEPEST: Final = "relu5_1"  # last layer that the published perceptual networks compute


class Patch(NamedTuple):
    """Replaces the attribute `name` of `owner` by `plain`."""

    owner: Any
    name: str
    plain: Any


class Optimization(NamedTuple):
    """An optimization of the training step, and how to undo it.

    off: overrides of the config that switch it off.
    patches: patches that undo it while the trainer is built and while it takes a step.
    prepare: a function that undoes it once, after the trainer was built.
    applies: whether the step of a config has this optimization.
    """

    name: str
    off: tuple[str, ...] = ()
    patches: tuple[Patch, ...] = ()
    prepare: Callable[[Trainer], None] | None = None
    applies: Callable[[Config], bool] = lambda _config: True


@contextmanager
def without(optimizations: list[Optimization]) -> Iterator[None]:
    """Context manager: applies the patches that undo `optimizations`."""
    with ExitStack() as stack:
        for optimization in optimizations:
            for owner, name, plain in optimization.patches:
                stack.enter_context(patch.object(owner, name, plain))
        yield


def plain_downsample(self: AntiAliasDownsample, image: Tensor) -> Tensor:
    """`AntiAliasDownsample.forward`: blur the whole image by a 2D kernel, then take every n-th
    pixel.
    """
    if self.stride == 1:
        return image
    with torch.autocast(image.device.type, enabled=False):
        image = full_precision(image)
        kernel = (self.kernel[:, None] * self.kernel).expand(image.shape[1], 1, -1, -1)
        radius = self.kernel.numel() // 2
        blurred = F.conv2d(image, kernel, padding=radius, groups=image.shape[1])
        return blurred[..., :: self.stride, :: self.stride]


def plain_heatmaps(points: Tensor, height: int, width: int, variance: float) -> Tensor:
    """`gaussian_heatmaps`: compute the exponential at every pixel."""
    offset = coordinate_grid(height, width, points) - points[:, :, None, None]
    return torch.exp(-offset.square().sum(dim=-1) / (2 * variance))


def plain_thin_plate(self: ThinPlateTransform, frame: Tensor) -> Tensor:
    """`ThinPlateTransform.frame`: compute the distances to the control points for each sample."""
    height, width = frame.shape[-2:]
    grid = coordinate_grid(height, width, full_precision(frame)).view(1, -1, 2)
    moved = self.points(grid.repeat(len(frame), 1, 1)).view(-1, height, width, 2)
    return warp(frame, moved, padding_mode="reflection")


def whole_vgg(self: VGGFeatures, image: Tensor, layers: Any = None) -> dict[str, Tensor]:
    """`VGGFeatures.forward`: return all layers, not only those that the loss needs."""
    x = (image - self.mean) / self.std
    features = {}
    for conv, name, pool in self.plan:
        x = F.relu(self.convs[conv](F.max_pool2d(x, 2) if pool else x))
        features[name] = x
    return features


def own_target_features(
    predictions: Mapping[str, Tensor],
    target: Tensor,
    target_features: PyramidFeatures,
    perceptual: Perceptual,
    weights: ReconstructionLosses,
) -> dict[str, LossTerm]:
    """`reconstruction_terms`: compute the target's features again for each prediction.

    The first prediction of a branch takes those that the step has computed, which count for it.
    """
    terms: dict[str, LossTerm] = {}
    for index, (prefix, prediction) in enumerate(predictions.items()):
        features = target_features
        if index > 0:
            with torch.no_grad():
                features = perceptual(target)
        if used_layers(weights.perceptual):
            terms[f"{prefix}perceptual"] = perceptual.loss(prediction, features, weights.perceptual)
        if weights.pixel:
            terms[f"{prefix}pixel"] = weigh(pixel_loss(prediction, target), weights.pixel)
    return terms


class TwoPasses(NamedTuple):
    """Outputs of the discriminator in a pass for the generator and in one for the discriminator."""

    for_generator: AdversarialOutputs
    for_discriminator: AdversarialOutputs


def discriminate_twice(self: Adversary, inputs: StepInputs) -> TwoPasses:
    """`Adversary.discriminate`: run the discriminator in a pass for each player. In its own pass it
    gets prediction and keypoints detached.
    """
    output = inputs.outputs.motion
    assert isinstance(output, MotionOutput)
    keypoints = output.driving_keypoints
    without_gradient = output._replace(
        prediction=output.prediction.detach(),
        driving_keypoints=None if keypoints is None else detached(keypoints),
    )
    heatmaps = self._heatmaps(inputs)
    for_generator = AdversarialOutputs(
        self._discriminate(inputs.driving, heatmaps),
        self._discriminate(output.prediction, heatmaps),
        None,
        None,
    )
    return TwoPasses(
        for_generator, _DISCRIMINATE(self, inputs.with_output("motion", without_gradient))
    )


def backward_everywhere(
    self: Optimizer, losses: dict[str, Tensor], num_parts: int = 1, *, is_last: bool = True
) -> None:
    """`Optimizer.backward`: the model's loss also computes gradients of the discriminator's
    parameters, which are thrown away.
    """
    assert num_parts == 1, "gradients of earlier parts would be thrown away, too"
    self.scaler.scale(losses["model"]).backward()
    if "discriminator" in losses:
        for parameter in self.players["discriminator"]:
            parameter.grad = None
        self.scaler.scale(losses["discriminator"]).backward()


def plain_feature_matching(generated: list[Tensor], real: list[Tensor]) -> Tensor:
    """`feature_matching_loss`: compute gradients through the real features, too."""
    pairs = zip(generated, real, strict=True)
    return torch.stack([losses.pixel_loss(a, b) for a, b in pairs]).sum()


def plain_pixel_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """`pixel_loss`: convert both images to float32 first."""
    return (full_precision(prediction) - full_precision(target)).abs().mean()


def _one_by_one(trainer: Trainer) -> None:
    """Let the optimizer update the parameters one by one."""
    algorithm = trainer.optimizer.algorithm
    for group in algorithm.param_groups:
        group["fused"] = group["foreach"] = False
    # Only the fused one can skip a bad step.
    algorithm.register_step_pre_hook(lambda it, *_: setattr(it, "found_inf", None))


def _to_the_deepest(trainer: Trainer) -> None:
    """Give the trainer a perceptual network that ends at DEEPEST."""
    config = trainer.config
    trainer.perceptual = build_perceptual(
        config.perceptual,
        perceptual_layers(config) | {DEEPEST},
        load_vgg(config.perceptual.network, config.perceptual.weights),
    ).to(trainer.device)
    prepare_networks(trainer.model, trainer.adversary, trainer.perceptual, config.train)


def _stored_in_float32(trainer: Trainer) -> None:
    """Store the weights of the perceptual network in float32 again."""
    trainer.perceptual.vgg.convs.float()


def _has_vgg(config: Config) -> bool:
    return bool(perceptual_layers(config))


def _has_blur_or_heatmaps(config: Config) -> bool:
    """Whether anything blurs, or draws heatmaps or thin plates that are separable."""
    has_motion = isinstance(config.motion, FommConfig | TpsmmConfig)
    return _has_masks(config) or _has_vgg(config) or (has_motion and not config.is_frozen)


def _has_upsampling_convolutions(config: Config) -> bool:
    has_motion = config.motion is not None and not isinstance(config.motion, X2FaceConfig)
    return _has_masks(config) or (has_motion and not config.is_frozen)


def _has_adversary(config: Config) -> bool:
    return config.discriminator is not None


def _has_masks(config: Config) -> bool:
    """Whether a step runs the mask branch."""
    return config.masks is not None and not config.is_frozen


_DISCRIMINATE = Adversary.discriminate
_GENERATOR_TERMS = Adversary.generator_terms
_DISCRIMINATOR_TERMS = Adversary.discriminator_terms

OPTIMIZATIONS: Final = (
    Optimization(
        "VGG no deeper than needed",
        patches=(Patch(VGGFeatures, "forward", whole_vgg),),
        prepare=_to_the_deepest,
        applies=lambda config: _has_vgg(config) and DEEPEST not in perceptual_layers(config),
    ),
    Optimization(
        "target features once",
        patches=tuple(
            Patch(branch, "reconstruction_terms", own_target_features)
            for branch in (fomm, monkey_net, x2face, tpsmm, masks, background)
        ),
        applies=_has_masks,
    ),
    Optimization(
        "one discriminator pass for both players",
        patches=(
            Patch(Adversary, "discriminate", discriminate_twice),
            Patch(
                Adversary,
                "generator_terms",
                lambda self, both: _GENERATOR_TERMS(self, both.for_generator),
            ),
            Patch(
                Adversary,
                "discriminator_terms",
                lambda self, both: _DISCRIMINATOR_TERMS(self, both.for_discriminator),
            ),
            Patch(adversary, "feature_matching_loss", plain_feature_matching),
            Patch(Optimizer, "backward", backward_everywhere),
        ),
        applies=_has_adversary,
    ),
    Optimization(
        "separable blur, heatmaps, thin plate",
        patches=(
            Patch(AntiAliasDownsample, "forward", plain_downsample),
            Patch(heatmaps, "gaussian_heatmaps", plain_heatmaps),
            Patch(ThinPlateTransform, "frame", plain_thin_plate),
        ),
        applies=_has_blur_or_heatmaps,
    ),
    Optimization(
        "upsampling in the convolution",
        patches=(Patch(blocks, "MIN_FUSED_AREA", math.inf),),
        applies=_has_upsampling_convolutions,
    ),
    Optimization("fused optimizer", prepare=_one_by_one),
    Optimization("channels_last", off=("train.channels_last=false",)),
    Optimization("half precision", off=("train.precision=float32",)),
    Optimization(
        "VGG stored in half precision",
        prepare=_stored_in_float32,
        applies=lambda config: _has_vgg(config) and config.train.precision in HALF_DTYPES,
    ),
    Optimization(
        "L1 without float32 copies",
        patches=(Patch(losses, "pixel_loss", plain_pixel_loss),),
    ),
    Optimization(
        "freed memory is kept",
        patches=(Patch(training, "keep_freed_memory", lambda: None),),
    ),
    Optimization("compile", off=("train.compile=none",)),
)
