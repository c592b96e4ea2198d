"""The models that benchmarks/animate.py measures, and the loop that animates as published scripts
do.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast
from unittest.mock import patch

import torch
from torch import Tensor, nn

from animation.branch_animators import Move
from benchmarks.plain_step import Optimization, Patch, plain_downsample, plain_heatmaps, without
from branches.branch import StepContext, StepInputs
from branches.model import Model
from branches.motion.branch import MotionBranch
from checkpoints import checkpoint
from checkpoints.weights import load_model
from common.batch_random import BatchRandom
from common.errors import UserError
from configs.loading import load_config
from configs.schema import Config
from losses import Perceptual
from modules import blocks, heatmaps
from modules.blocks import AntiAliasDownsample, UpConv2d
from modules.keypoint_detector import KeypointDetector
from modules.keypoint_transfer import movement_scale
from modules.monkey_net.keypoint_detector import MonkeyNetKeypointDetector
from modules.tpsmm.keypoint_detector import GroupedKeypointDetector
from modules.x2face import UNet

AS_PUBLISHED: Final = Optimization(
    "fewer products",
    patches=(
        Patch(AntiAliasDownsample, "forward", plain_downsample),
        Patch(heatmaps, "gaussian_heatmaps", plain_heatmaps),
        Patch(blocks, "MIN_FUSED_AREA", math.inf),
    ),
)


def build_model(arguments: argparse.Namespace, device: torch.device) -> tuple[Model, Config]:
    """Build the model in evaluation mode, with the weights of --checkpoint or random ones.

    Raises:
        UserError: it has no motion branch.
    """
    if arguments.checkpoint is not None:
        if arguments.overrides:
            raise UserError(f"{arguments.overrides[0]}: a checkpoint has its own config; leave out")
        saved = checkpoint.load(Path(arguments.checkpoint))
        config = saved.config
    else:
        saved, config = None, load_config(arguments.config, arguments.overrides)
    if config.motion is None:
        raise UserError("motion is null; this measures the motion branch, use another config")
    model = Model(config).eval().to(device) if saved is None else load_model(saved, device)
    return model, config


def motion_of(model: Model) -> MotionBranch:
    """The motion branch, which `build_model` has checked to be there."""
    assert model.motion is not None
    return model.motion


def has_fewer_products(branch: MotionBranch) -> bool:
    """Whether the networks have any layer that AS_PUBLISHED computes by its definition."""
    return any(isinstance(module, AntiAliasDownsample | UpConv2d) for module in branch.modules())


@torch.no_grad()
def calibrate(branch: MotionBranch, frames: Tensor) -> None:
    """Prepare random networks for a comparison of predictions.

    The statistics of BatchNorm are taken from `frames`, N x 3 x H x W; the first frame is the
    source. Coordinates are made to move no farther than those of a figure: random ones jump across
    the picture, which would turn rounding errors into large ones.
    """
    for module in branch.modules():
        if isinstance(module, KeypointDetector | MonkeyNetKeypointDetector):
            module.kp.weight *= 0.1
        elif isinstance(module, GroupedKeypointDetector):
            spread_keypoints(module)
        elif isinstance(module, UNet):
            cast(Any, module.up_blocks[-1]).conv.weight *= 0.1
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the initial statistics are replaced completely
    branch.train()
    context = StepContext(0.0, BatchRandom(torch.Generator(frames.device).manual_seed(0)), 0.0)
    # Only losses ask for the perceptual network.
    unused = cast(Perceptual, None)
    branch(StepInputs(frames[:1].expand_as(frames), frames, frames, unused, [], context))
    branch.eval()


@torch.no_grad()
def spread_keypoints(detector: GroupedKeypointDetector) -> None:
    """Spread the keypoints of a random detector over the picture, where they then move little.

    They would all be near its middle, and thin plates through almost the same points turn rounding
    errors into large ones.
    """
    layer = cast(nn.Linear, detector.fg_encoder.fc)
    layer.weight *= 0.1
    generator = torch.Generator().manual_seed(0)
    layer.bias.copy_(1.5 * torch.randn(layer.bias.shape, generator=generator))


def plain_loop(
    model: Model,
    source: Tensor,
    reference: Tensor,
    optimizations: Sequence[Optimization] = (AS_PUBLISHED,),
) -> Move:
    """The animation loop of the published scripts, with the default motion of the model: everything
    but the keypoints of source and reference frame is computed again for every frame.

    Args:
        source, reference: source frame and first driving frame, 1 x 3 x H x W.
        optimizations: optimizations of the networks that are switched off.
    """
    branch = motion_of(model)
    source = source.contiguous()
    detect = branch.detect
    source_pose, origin = detect(source), detect(reference.contiguous())
    is_relative = branch.modes[0] == "relative"
    scale = 1.0
    if is_relative and branch.always_adapts_scale:
        scale = movement_scale(source_pose, origin)

    def remembered(frames: Tensor) -> Any:
        return source_pose if frames is source else detect(frames)

    def move(driving: Tensor) -> Tensor:
        with without(list(optimizations)), patch.object(branch, "detect", remembered):
            encoded = branch.encode(source)
            pose = branch.detect(driving.contiguous())
            if is_relative:
                pose = branch.relative_pose(source_pose, pose, origin, scale)
            return branch.predict(encoded, pose)

    return move
