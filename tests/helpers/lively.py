"""Models of every kind whose outputs are not trivial, as if they had been trained."""

from pathlib import Path

import torch
from torch import nn

from branches.model import Model
from checkpoints import checkpoint
from configs.schema import Config
from modules.keypoint_detector import KeypointDetector
from modules.monkey_net.dense_motion import MonkeyNetDenseMotion
from modules.monkey_net.keypoint_detector import MonkeyNetKeypointDetector
from modules.tpsmm.avd import AVDNetwork
from modules.tpsmm.background_predictor import BackgroundPredictor
from modules.tpsmm.keypoint_detector import GroupedKeypointDetector
from tests.helpers.factories import noise_inputs, tiny_config
from tests.helpers.tiny_kinds import KINDS as FURTHER_KINDS
from tests.helpers.tiny_kinds import tiny_kind

KINDS = ("fomm", *FURTHER_KINDS)


def kind_config(kind: str, *overrides: str) -> Config:
    """The config of a tiny model of a kind, with masks and background, without a discriminator.

    Sides are powers of two, which X2Face needs.
    """
    tiny = ("data.image_size=[32, 64]", "discriminator=null", *tiny_kind(kind))
    return tiny_config(*tiny, *overrides)


def lively_model(config: Config) -> Model:
    """A model in evaluation mode whose BatchNorm statistics, keypoints, Jacobians and motion are
    not trivial.
    """
    model = Model(config)
    generator = torch.Generator().manual_seed(0)

    def disturb(layer: nn.Module | None, size: float) -> None:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data += size * torch.randn(layer.weight.shape, generator=generator)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.3, 0.3, generator=generator)
        elif isinstance(module, KeypointDetector):
            disturb(module.jacobian, 0.02)
            disturb(module.kp, 0.2)
        elif isinstance(module, MonkeyNetKeypointDetector):
            disturb(module.kp, 0.2)
        elif isinstance(module, MonkeyNetDenseMotion):
            disturb(module.weights_and_correction, 0.02)
            disturb(module.occlusion, 0.02)
        elif isinstance(module, GroupedKeypointDetector):
            disturb(module.fg_encoder.fc, 0.1)
        elif isinstance(module, BackgroundPredictor):
            disturb(module.bg_encoder.fc, 0.002)
        elif isinstance(module, AVDNetwork):
            disturb(module.decoder[-1], 1.0)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            inputs = noise_inputs(config)
            for name, branch in model.branches.items():
                inputs = inputs.with_output(name, branch(inputs))
            if model.second_stage is not None:
                model.second_stage(inputs)
    return model.eval()


def write_checkpoint(path: Path, config: Config) -> Path:
    """Write a checkpoint of a `lively_model`, as if it had been trained to the end."""
    checkpoint.save(
        path,
        config,
        lively_model(config).networks,
        step=8,
        epoch=config.train.epochs,
        batch=0,
        average=None,
        training={},
        metrics={},
    )
    return path
