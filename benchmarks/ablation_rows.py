"""The rows of benchmarks/ablation.py: the overrides that turn a config into each of them.

The rows of FOMM keep the config's motion model and change the discriminator alone. The other motion
models have sizes for images of 64 x 64 and 32 x 32 pixels, chosen beside demo.yaml at 64 x 64:

    x2face        published widths up to 256 channels, 5 levels: a step takes 1.0 times that of fomm
    monkey-net    keypoints and dense motion as in demo.yaml, a generator of 4 levels: 0.9
    tpsmm         dense motion and inpainting of FOMM's widths: 2.2, 45% of it in ResNet-18, which
                  has one size alone. So the background does not move, as published for MGif

The rows fomm-skip to fomm-all add what demo.yaml has and FOMM has not: keypoint prior, heatmap
start and skip connection; they are for demo-fomm.yaml.

The row fomm-adv-equal is fomm-adv with features weighted so that the sum over all layers is that of
the U-Net, which has twice as many or more. The rows prioritycut-least, -random and -frame are
controls: the same number of pixels is cut, but the least occluded of the foreground, any of the
foreground, or the most occluded of the whole frame.

The times are of float32 on one CPU core, the model alone: medians of 31 training steps of each, in
turn, without discriminator, masks and background, in channels-last memory. In planar memory they
are 1.0, 0.7 and 1.6 times that of fomm, which itself then takes 1.4 times as long. Where a network
has its own learning rate in the config, so has the network with its task in the other motion
models.
"""

from collections.abc import Sequence
from typing import Final

from common.errors import UserError
from configs.loading import load_config
from configs.motion.fomm import FommConfig
from configs.schema import DiscriminatorConfig


def _sizes(network: str, *sizes: str) -> tuple[str, ...]:
    return tuple(f"motion.{network}.{size}" for size in sizes)


_HOURGLASS = ("max_width=64", "num_blocks=4")
_X2FACE_UNET = ("width=64", "max_width=256", "code=256", "num_levels=5")
_X2FACE = (
    "motion.kind=x2face",
    *_sizes("embedding", *_X2FACE_UNET),
    *_sizes("driving", *_X2FACE_UNET),
)
_MONKEY_NET = (
    "motion.kind=monkey_net",
    *_sizes("keypoint_detector", *_HOURGLASS, "num_keypoints=8", "scale=0.5", "width=16"),
    *_sizes("dense_motion", *_HOURGLASS, "scale=1.0", "width=8"),
    *_sizes("generator", "width=16", "max_width=64", "num_blocks=4", "num_res_blocks=2"),
)
_TPSMM = (
    "motion.kind=tpsmm",
    "motion.keypoint_detector.num_plates=8",
    # InstanceNorm needs more than one pixel at the deepest level: one block less.
    *_sizes("dense_motion", "max_width=64", "num_blocks=3", "scale=0.5", "width=8"),
    # The published dropout ends after 35 of 100 epochs; so few epochs are too short for it.
    *_sizes("dense_motion", "dropout.start=0", "dropout.highest=0"),
    *_sizes("inpainting", "width=16", "max_width=64", "num_down_blocks=2"),
    "motion.background_motion=null",
)
_PRIORITYCUT = (
    "discriminator.kind=unet",
    "discriminator.cut.kind=priority",
    "discriminator.cut.foreground=dense_motion",
)
_PATCH_CHANNELS = (16, 32, 64)  # the U-Net's list is too long for a patch discriminator
_PATCH_CHANNELS_OVERRIDE = f"discriminator.channels={list(_PATCH_CHANNELS)}"
_FOMM_ADV = (
    "discriminator.kind=patch",
    _PATCH_CHANNELS_OVERRIDE,
    "discriminator.spectral_norm=false",
    "discriminator.keypoints=true",
    "discriminator.cut.kind=none",
)
_PRIOR = (
    "motion.prior.weight=20",
    "motion.prior.alone_until_epoch=4",
    "motion.losses.equivariance_value=30",
    "motion.keypoint_detector.learning_rate=5e-4",
)
_HEATMAP_START = ("motion.dense_motion.heatmap_start=8",)
_SKIP = (
    "motion.generator.skip=true",
    "motion.losses.decoded=25",
    "motion.losses.visibility=25",
)
ROWS: Final[dict[str, tuple[str, ...]]] = {
    "fomm": ("discriminator=null",),
    "fomm-adv": _FOMM_ADV,
    "unet": ("discriminator.kind=unet", "discriminator.cut.kind=none"),
    "cutmix": ("discriminator.kind=unet", "discriminator.cut.kind=rectangle"),
    "prioritycut": _PRIORITYCUT,
    "prioritycut-masks": (
        "discriminator.kind=unet",
        "discriminator.cut.kind=priority",
        "discriminator.cut.foreground=mask_generator",
    ),
    "fomm-adv-equal": _FOMM_ADV,
    "prioritycut-least": (*_PRIORITYCUT, "discriminator.cut.order=least_occluded"),
    "prioritycut-random": (*_PRIORITYCUT, "discriminator.cut.order=random"),
    "prioritycut-frame": (*_PRIORITYCUT, "discriminator.cut.foreground=frame"),
    "x2face": (*_X2FACE, "discriminator=null"),
    "monkey-net": (
        *_MONKEY_NET,
        "discriminator.kind=monkey_net",
        _PATCH_CHANNELS_OVERRIDE,
        "discriminator.spectral_norm=false",
        "discriminator.detach=false",
        "discriminator.keypoints=true",
        "discriminator.loss=least_squares",
        "discriminator.losses.encoder=1",
        "discriminator.generator_losses.encoder=1",
        "discriminator.generator_losses.encoder_features=[10, 10, 1]",
        "discriminator.cut.kind=none",
    ),
    "monkey-net-prioritycut": (
        *_MONKEY_NET,
        "motion.dense_motion.occlusion=true",
        *_PRIORITYCUT,
        "discriminator.generator_losses.encoder=0.5",
        "discriminator.generator_losses.decoder=0.5",
        "discriminator.generator_losses.decoder_features=0",
    ),
    "tpsmm": (*_TPSMM, "discriminator=null"),
    "tpsmm-prioritycut": (*_TPSMM, *_PRIORITYCUT),
    "fomm-skip": ("discriminator=null", *_SKIP),
    "fomm-prior": ("discriminator=null", *_PRIOR),
    "fomm-prior-start": ("discriminator=null", *_PRIOR, *_HEATMAP_START),
    "fomm-prior-skip": ("discriminator=null", *_PRIOR, *_SKIP),
    "fomm-all": ("discriminator=null", *_PRIOR, *_HEATMAP_START, *_SKIP),
}
# The rows of the PriorityCut paper, which the config's motion model allows without another section.
OF_THE_PAPER: Final = ("fomm", "fomm-adv", "unet", "cutmix", "prioritycut")
# Networks that take the place of one of FOMM in the other motion models.
_SUCCESSORS: Final = {
    "generator": ("embedding", "driving", "inpainting", "generator"),
    "dense_motion": ("dense_motion",),
    "keypoint_detector": ("keypoint_detector",),
}


def row_overrides(config: str, overrides: Sequence[str], row: str) -> list[str]:
    """The overrides that turn the config into `row`.

    In the losses of both players, the single head of the patch discriminator gets the sum of the
    weights that the U-Net's two heads have in the config. TPSMM, which is published with FOMM's
    reconstruction loss, gets the config's; X2Face and Monkey-Net have their own.

    Raises:
        UserError: the config cannot be used.
    """
    changes = list(ROWS[row])
    given = load_config(config, overrides)
    if not isinstance(given.motion, FommConfig):
        found = "null" if given.motion is None else f"kind {given.motion.kind}"
        raise UserError(
            f"motion: found {found}; the rows start from a config with the motion model of FOMM"
        )
    if "discriminator.kind=patch" in changes:
        changes += _summed_weights(given.discriminator)
    if row == "fomm-adv-equal":
        total = _feature_weight(given.discriminator or DiscriminatorConfig())
        weight = total / len(_PATCH_CHANNELS)
        changes.append(f"discriminator.generator_losses.encoder_features={weight}")
    if changes[0].startswith("motion.kind="):
        changes += _learning_rates(given.motion, load_config(config, [*overrides, *changes]).motion)
    if "motion.kind=tpsmm" in changes:
        layers = given.motion.losses.perceptual.items()
        perceptual = ", ".join(f"{layer}: {weight}" for layer, weight in layers)
        changes.append(f"motion.losses.perceptual={{{perceptual}}}")
        changes.append(f"motion.losses.pixel={given.motion.losses.pixel}")
    if "motion.kind=monkey_net" in changes and "discriminator.kind=unet" in changes:
        number = len((given.discriminator or DiscriminatorConfig()).channels)
        # Published for four blocks; those behind the fourth are not compared.
        weights = [*[10.0] * min(3, number - 1), 1.0, *[0.0] * (number - 4)]
        changes.append(f"discriminator.generator_losses.encoder_features={weights}")
    return changes


def _summed_weights(given: DiscriminatorConfig | None) -> list[str]:
    """Overrides that give one head the weights of both heads of a U-Net."""
    if given is None or given.kind != "unet":
        return []
    sums = {
        section: getattr(given, section).encoder + getattr(given, section).decoder
        for section in ("losses", "generator_losses")
    }
    return [f"discriminator.{section}.encoder={weight}" for section, weight in sums.items()]


def _feature_weight(given: DiscriminatorConfig) -> float:
    """The weights of the generator's feature matching, summed over the layers of all heads."""
    weights = given.generator_losses
    heads = [weights.encoder_features]
    if given.kind == "unet":
        heads.append(weights.decoder_features)
    number = len(given.channels)
    return sum(sum(head) if isinstance(head, list) else number * head for head in heads)


def _learning_rates(given: FommConfig, other: object) -> list[str]:
    """Overrides that give networks of another motion model the learning rates of FOMM's."""
    return [
        f"motion.{successor}.learning_rate={rate}"
        for network, successors in _SUCCESSORS.items()
        if (rate := getattr(given, network).learning_rate) is not None
        for successor in successors
        if hasattr(other, successor)
    ]
