"""Small test data: a tiny config, clips in memory, batches and inputs of a training step."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from branches.branch import StepContext, StepInputs
from branches.model import Model
from common.batch_random import BatchRandom
from configs.loading import override_config, parse_config
from configs.schema import Config
from datasets.pairs import FramePairs, PairBatch, SampleIndex, collate
from datasets.source import Clip
from losses import LossTerm, Perceptual, build_perceptual, perceptual_layers
from media.frames import Frames
from media.video import VideoError

# All keys that affect numbers or running time. A dict is a section of the config; other values are
# set as they are.
_TINY: dict[str, Any] = {
    "data.kind": "puppets",
    "data.image_size": 32,
    "data.repeats": 2,  # 16 samples, and so 4 steps, in an epoch
    "data.num_workers": 0,
    "data.puppets.num_train_clips": 8,
    "data.puppets.num_test_clips": 2,
    "data.puppets.num_frames": 4,
    "motion.keypoint_detector.scale": 0.5,
    "motion.keypoint_detector.width": 4,
    "motion.keypoint_detector.max_width": 16,
    "motion.keypoint_detector.num_blocks": 2,
    "motion.keypoint_detector.num_keypoints": 4,
    "motion.keypoint_detector.learning_rate": None,
    "motion.dense_motion.scale": 0.5,
    "motion.dense_motion.width": 4,
    "motion.dense_motion.max_width": 16,
    "motion.dense_motion.num_blocks": 2,
    "motion.dense_motion.heatmap_start": 0.0,
    "motion.dense_motion.learning_rate": None,
    "motion.generator.width": 4,
    "motion.generator.max_width": 16,
    "motion.generator.num_down_blocks": 1,
    "motion.generator.num_res_blocks": 1,
    "motion.generator.skip": False,
    "motion.generator.learning_rate": None,
    "motion.prior.weight": 0.0,
    "motion.prior.alone_until_epoch": 0,
    "motion.losses.perceptual": {"relu1_1": 10.0, "relu2_1": 10.0},
    "motion.losses.pixel": 0.0,
    "motion.losses.decoded": 0.0,
    "motion.losses.visibility": 0.0,
    "motion.losses.equivariance_value": 10.0,
    "masks.mask_generator.scale": 0.5,
    "masks.mask_generator.width": 4,
    "masks.mask_generator.max_width": 16,
    "masks.mask_generator.num_blocks": 2,
    "masks.mask_generator.skips": False,
    "masks.mask_generator.learning_rate": None,
    "masks.refinement.width": 4,
    "masks.refinement.max_width": 16,
    "masks.refinement.num_blocks": 2,
    "masks.refinement.start_epoch": 0,  # all parts start with the first step
    "masks.refinement.start_share": None,
    "masks.refinement.learning_rate": None,
    "masks.low_resolution.width": 4,
    "masks.low_resolution.max_width": 8,
    "masks.low_resolution.num_res_blocks": 1,
    "masks.low_resolution.learning_rate": None,
    "masks.high_resolution.width": 4,
    "masks.high_resolution.max_width": 16,
    "masks.high_resolution.num_blocks": 2,
    "masks.high_resolution.learning_rate": None,
    "masks.perturbation.threshold": 60.0,
    "masks.prior.weight": 1.0,
    "masks.prior.change_threshold": 0.1,
    "masks.prior.changed_share": 0.5,
    "masks.losses.perceptual": {"relu1_1": 10.0, "relu2_1": 10.0},
    "masks.losses.pixel": 0.0,
    "background.start_epoch": 0,
    "background.start_share": None,
    "background.threshold": 0.4,
    "background.foreign_probability": 0.0,
    "background.hole_probability": 0.0,
    "background.bg_base.width": 4,
    "background.bg_base.max_width": 8,
    "background.bg_base.num_res_blocks": 1,
    "background.bg_base.learning_rate": None,
    "background.bg_refine.width": 4,
    "background.bg_refine.max_width": 16,
    "background.bg_refine.num_blocks": 2,
    "background.bg_refine.skip": False,
    "background.bg_refine.skip_base": False,
    "background.bg_refine.learning_rate": None,
    "background.losses.perceptual": {"relu1_1": 10.0, "relu2_1": 10.0},
    "background.losses.pixel": 0.0,
    "discriminator.kind": "unet",
    "discriminator.channels": [4, 8],
    "discriminator.learning_rate": None,
    "discriminator.losses.encoder": 1.0,
    "discriminator.losses.decoder": 1.0,
    "discriminator.losses.consistency": 1.0,
    "discriminator.generator_losses.encoder": 1.0,
    "discriminator.generator_losses.decoder": 1.0,
    "discriminator.generator_losses.encoder_features": 10.0,
    "discriminator.generator_losses.decoder_features": 10.0,
    "discriminator.cut.kind": "priority",
    "discriminator.cut.probability": 0.5,
    "discriminator.cut.warm_up_epochs": 0.0,
    "perceptual.network": "vgg16",
    "perceptual.weights": "random",
    "perceptual.width": 4,
    "perceptual.scales": [1.0, 0.5],
    "train.epochs": 2,
    "train.max_steps": None,
    "train.max_minutes": None,
    "train.min_steps": None,
    "train.min_steps_minutes": None,
    "train.batch_size": 4,
    "train.learning_rate": 2e-4,
    "train.milestones": [],
    "train.precision": "float32",
    "train.channels_last": True,
    "train.ema_decay": None,
    "train.clip_norm": None,
    "train.checkpoint_every": 4,
    "log.scalars_every": 1,
    "log.images_every": 4,
    "log.validate_every": 4,
    "log.num_images": 2,
    "log.num_validation_clips": 2,
    "log.num_validation_frames": 3,
}


def tiny_overrides() -> list[str]:
    """Overrides that turn `--config demo.yaml` into a run of 8 steps that takes seconds."""
    return [f"{key}={_flow(value)}" for key, value in _TINY.items()]


def _flow(value: Any) -> str:
    """Write `value` as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}"
    return "null" if value is None else str(value)


def tiny_config(*overrides: str) -> Config:
    """The config of a tiny run. It does not inherit from demo.yaml, so that a change of that file
    does not change stored numbers.
    """
    return override_config(parse_config(_nested(), "tiny"), overrides)


def _nested() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in _TINY.items():
        *sections, name = key.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return tree


class MemoryClips:
    """A ClipSource of noise in memory, 16 x 16 pixels; the identity is a clip's name up to the `#`.

    Pixel (0, 0) holds the numbers of the clip and of the frame, so that a test sees what was read.
    """

    def __init__(
        self, names: Sequence[str], num_frames: int = 6, broken: Sequence[str] = ()
    ) -> None:
        self.clips: Sequence[Clip] = [Clip(name, name.split("#")[0]) for name in names]
        self.image_size = (16, 16)
        self.broken = broken
        rng = np.random.default_rng(0)
        self.frames = rng.integers(256, size=(len(names), num_frames, 16, 16, 3), dtype=np.uint8)
        for clip in range(len(names)):
            for frame in range(num_frames):
                self.frames[clip, frame, 0, 0] = (clip, frame, 0)

    def num_frames(self, index: int) -> int:
        if self.clips[index].name in self.broken:
            raise VideoError(f"{self.clips[index].name}: broken")
        return len(self.frames[index])

    def frame_rate(self, index: int) -> Fraction:
        return Fraction(25)

    def stream(self, index: int) -> Iterator[NDArray[np.uint8]]:
        return iter(self.frames[index])

    def read(self, index: int, frames: Sequence[int]) -> Frames:
        return self.frames[index][list(frames)]


def noise_frames(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Smooth random frames, count x 3 x H x W in [0, 1]; seeded."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, size[0] // 4, size[1] // 4, generator=generator)
    return F.interpolate(coarse, scale_factor=4, mode="bicubic").clamp(0, 1)


def noise_batch(config: Config) -> PairBatch:
    """A training batch of smooth noise, with the augmentation that epoch 0 would get."""
    size = config.train.batch_size
    frames = noise_frames(2 * size, config.data.size).mul(255).round().byte().unflatten(0, (-1, 2))
    clips = MemoryClips("abcd")
    clips.image_size = config.data.size
    pairs = FramePairs(clips, size, config.data.augmentation, config.seed)
    batch = collate([pairs[SampleIndex(0, index)] for index in range(size)])
    return batch._replace(frames=frames)


def tiny_perceptual(config: Config) -> Perceptual:
    """The perceptual loss of `config`, with random weights."""
    return build_perceptual(config.perceptual, perceptual_layers(config), None)


def noise_inputs(config: Config, batch: int = 2) -> StepInputs:
    """Inputs of a step in the first epoch, with smooth random frames of the config's size.

    The recolored frame has red and blue exchanged, so that a test sees which network uses it.
    """
    source, driving = noise_frames(2 * batch, config.data.size).chunk(2)
    perceptual = tiny_perceptual(config)
    with torch.no_grad():
        target_features = perceptual(driving)
    generator = torch.Generator().manual_seed(0)
    recolored = driving.flip(1)
    context = StepContext(0.0, BatchRandom(generator), host_random=0.0)
    return StepInputs(source, driving, recolored, perceptual, target_features, context)


def at_epoch(inputs: StepInputs, epoch: float) -> StepInputs:
    """The inputs, as if in a step at `epoch`."""
    return inputs._replace(context=inputs.context._replace(epoch=epoch))


def before_start(inputs: StepInputs, section: str) -> StepInputs:
    """The inputs, as if in a step before the part of this config section starts."""
    return inputs._replace(context=inputs.context._replace(waiting=frozenset({section})))


def joint_terms(model: Model, inputs: StepInputs) -> tuple[dict[str, LossTerm], StepInputs]:
    """Run all branches in their order; returns loss terms by `branch/name`, and the inputs with all
    outputs.
    """
    terms = {}
    for branch_name, branch in model.training_branches.items():
        output = branch(inputs)
        inputs = inputs.with_output(branch_name, output)
        for name, term in branch.loss_terms(inputs, output).items():
            terms[f"{branch_name}/{name}"] = term
    return terms, inputs


class WaitsForTheDevice(TorchDispatchMode):
    """Records operations for which the host would have to wait for a GPU."""

    WAITING = (
        "_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal",
        "lift_fresh",  # copies a Python number to the device
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.WAITING:
            self.found.append(name)
        if name in ("index", "index_put_"):
            indices = [index for index in args[1] if index is not None]
            self.found += [f"{name} by bool" for index in indices if index.dtype == torch.bool]
        return function(*args, **(kwargs or {}))
