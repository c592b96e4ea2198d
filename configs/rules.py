"""Rules between the keys of a config. The range of a single key is in `schema.py`."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from configs.motion.fomm import FommConfig
from configs.schema import BRANCHES, Config
from configs.value_types import ReluLayer
from modules.discriminator import PatchDiscriminator
from modules.mask_generator import KERNEL
from modules.vgg import CONVS_PER_BLOCK

VGG_WIDTH = 64  # channels of the first layer of every published VGG


class Violation(NamedTuple):
    """A broken rule.

    keys: the dotted keys that the rule depends on; the first is the one to report.
    reason: what was found and what to do.
    """

    keys: tuple[str, ...]
    reason: str


def violations(config: Config) -> list[Violation]:
    """Return every rule that `config` breaks."""
    return [violation for rule in RULES for violation in rule(config)]


def _branches(config: Config) -> Iterator[Violation]:
    if not config.branches:
        yield Violation(
            BRANCHES, f"nothing to train; at least one section of: {', '.join(BRANCHES)} is needed"
        )


def _data(config: Config) -> Iterator[Violation]:
    if config.data.kind == "clips" and config.data.root is None:
        yield Violation(
            ("data.root", "data.kind"),
            "data.kind clips needs a folder with train/ and test/; set data.root",
        )


def _background_needs_masks(config: Config) -> Iterator[Violation]:
    if config.background is not None and config.masks is None:
        yield Violation(
            ("background", "masks"),
            "the background branch needs the masks of the mask branch, and masks is null; set "
            "background=null, or give the section masks",
        )


def _motion_sizes(config: Config) -> Iterator[Violation]:
    motion = config.motion
    if motion is None:
        return
    for part in motion.halvings:
        yield from _blocks_fit(config, part.section, part.key, part.number, part.scale)
    if isinstance(motion, FommConfig):
        scale = motion.keypoint_detector.scale
        yield from _kernel_fits(config, "motion.keypoint_detector", scale)


def _mask_sizes(config: Config) -> Iterator[Violation]:
    masks, background = config.masks, config.background
    if masks is None:
        return
    scale = masks.mask_generator.scale
    yield from _blocks_fit(
        config, "masks.mask_generator", "num_blocks", masks.mask_generator.num_blocks, scale
    )
    yield from _blocks_fit(
        config, "masks.refinement", "num_blocks", masks.refinement.num_blocks, scale
    )
    yield from _blocks_fit(
        config, "masks.high_resolution", "num_blocks", masks.high_resolution.num_blocks
    )
    if background is not None:
        yield from _blocks_fit(
            config, "background.bg_refine", "num_blocks", background.bg_refine.num_blocks
        )
    yield from _kernel_fits(config, "masks.mask_generator", scale)


def _starts(config: Config) -> Iterator[Violation]:
    for section, start in config.starts.items():
        if start.share is None and start.epoch >= config.train.epochs:
            yield Violation(
                (f"{section}.start_epoch", "train.epochs"),
                f"found {start.epoch} with train.epochs {config.train.epochs}; the part that "
                "starts there would stay untrained",
            )


def _ranges(config: Config) -> Iterator[Violation]:
    ranges = {"data.augmentation.resize": config.data.augmentation.resize}
    if config.masks is not None:
        perturbation = config.masks.perturbation
        ranges["masks.perturbation.pivots"] = perturbation.pivots
        ranges["masks.perturbation.scales"] = perturbation.scales
    for key, (low, high) in ranges.items():
        if low > high:
            yield Violation((key,), f"found [{low:g}, {high:g}]; the first is larger")


def _reconstruction_losses(config: Config) -> Iterator[Violation]:
    for name, branch in config.branches.items():
        if not any(branch.losses.perceptual.values()) and branch.losses.pixel == 0:
            key = f"{name}.losses"
            yield Violation(
                (f"{key}.perceptual", f"{key}.pixel"),
                f"no weight above 0, nor is {key}.pixel; nothing would train the generator",
            )


def _motion_problems(config: Config) -> Iterator[Violation]:
    if config.motion is not None:
        for keys, reason in config.motion.problems():
            yield Violation(keys, reason)


def _discriminator_needs_motion(config: Config) -> Iterator[Violation]:
    if config.discriminator is not None and config.motion is None:
        yield Violation(
            ("discriminator", "motion"),
            "its input is the prediction of the motion branch, and motion is null; set "
            "discriminator=null, or give the section motion",
        )


def _discriminator_keypoints(config: Config) -> Iterator[Violation]:
    discriminator, motion = config.discriminator, config.motion
    if discriminator and discriminator.keypoints and motion and motion.num_keypoints is None:
        yield Violation(
            ("discriminator.keypoints", "motion"),
            f"found true, and the motion model, of kind {motion.kind}, has no keypoints; set it to "
            "false",
        )


def _discriminator_sizes(config: Config) -> Iterator[Violation]:
    discriminator = config.discriminator
    if discriminator is None:
        return
    num_blocks = len(discriminator.channels)
    blocks = f"{num_blocks} blocks of kind {discriminator.kind}"
    keys = ("discriminator.channels", "discriminator.kind", "data.image_size")
    if discriminator.kind == "unet":
        sides, needed = math.gcd(*config.data.size), 2**num_blocks
        if sides % needed:
            most = (sides & -sides).bit_length() - 1  # how often both sides can be halved
            yield Violation(
                keys,
                f"{blocks} need image sides that are multiples of {needed}; data.image_size is "
                f"{_size(config)}; the largest number that fits is {most}",
            )
    elif PatchDiscriminator.patch_side(min(config.data.size), num_blocks) < 2:
        # The instance norm of the last block needs more than one position.
        yield Violation(
            keys, f"{blocks} leave less than 2 x 2 patches of {_size(config)}; give fewer"
        )


def _discriminator_losses(config: Config) -> Iterator[Violation]:
    discriminator = config.discriminator
    if discriminator is None:
        return
    own, generators = discriminator.losses, discriminator.generator_losses
    heads = ("encoder", "decoder") if discriminator.kind == "unet" else ("encoder",)
    if not any(getattr(own, head) for head in heads):
        verb = "is 0" if len(heads) == 1 else "are 0"
        yield Violation(
            ("discriminator.losses", "discriminator.kind"),
            f"{' and '.join(heads)} {verb}; the discriminator would not learn to tell real from "
            "generated",
        )
        return
    for head in heads:
        if getattr(generators, head) and not getattr(own, head):
            yield Violation(
                (f"discriminator.generator_losses.{head}", f"discriminator.losses.{head}"),
                f"found {getattr(generators, head):g} with discriminator.losses.{head} 0; the "
                "generator would learn from an untrained output; set it to 0 too",
            )
    terms = [getattr(generators, name) for head in heads for name in (head, f"{head}_features")]
    if not any(terms):
        yield Violation(
            ("discriminator.generator_losses", "discriminator.kind"),
            "no weight above 0; the discriminator would have no effect; set discriminator=null",
        )


def _cut(config: Config) -> Iterator[Violation]:
    discriminator, motion = config.discriminator, config.motion
    if discriminator is None or motion is None or discriminator.cut.kind == "none":
        return
    cut = discriminator.cut
    if discriminator.kind != "unet":
        yield Violation(
            ("discriminator.cut.kind", "discriminator.kind"),
            f"found {cut.kind} with discriminator.kind {discriminator.kind}; only kind unet rates "
            "the pixels of a mixed image; set it to none",
        )
    if cut.occlusion == "map" and not motion.predicts_occlusion:
        key = motion.occlusion_key
        remedy = "" if key is None else f", {key} to true"
        yield Violation(
            ("discriminator.cut.occlusion", "discriminator.cut.kind", "motion"),
            f"found map, and the motion model, of kind {motion.kind}, predicts no occlusion map; "
            f"set it to field{remedy}, or discriminator.cut.kind to none",
        )
    if cut.foreground == "dense_motion" and not motion.predicts_background:
        yield Violation(
            ("discriminator.cut.foreground", "discriminator.cut.kind", "motion"),
            f"found dense_motion, and the motion model, of kind {motion.kind}, has no motion of "
            "the background; set it to field or mask_generator",
        )
    if cut.foreground == "mask_generator" and config.masks is None:
        yield Violation(
            ("discriminator.cut.foreground", "masks"),
            "found mask_generator, and masks is null; set it to dense_motion, or give the section "
            "masks",
        )
    if discriminator.losses.consistency == 0 and not cut.as_sample:
        yield Violation(
            (
                "discriminator.cut.kind",
                "discriminator.losses.consistency",
                "discriminator.cut.as_sample",
            ),
            f"found {cut.kind} with discriminator.losses.consistency 0 and "
            "discriminator.cut.as_sample false; nothing would use the mixed images; set it to none",
        )


def _perceptual_network(config: Config) -> Iterator[Violation]:
    perceptual = config.perceptual
    if perceptual.width != VGG_WIDTH and perceptual.weights != "random":
        yield Violation(
            ("perceptual.width", "perceptual.weights"),
            f"found {perceptual.width} with perceptual.weights {perceptual.weights}, which have "
            f"{VGG_WIDTH}; another width is only for random weights",
        )
    for key, weights in _perceptual_losses(config).items():
        for layer in weights:
            block, convolution = _position(layer)
            last = CONVS_PER_BLOCK[perceptual.network][block - 1]
            if convolution > last:
                yield Violation(
                    (f"{key}.{layer}", "perceptual.network"),
                    f"perceptual.network {perceptual.network} has no such layer; "
                    f"the last of block {block} is relu{block}_{last}",
                )


def _perceptual_sizes(config: Config) -> Iterator[Violation]:
    deepest = {
        key: max(used, key=_position)
        for key, weights in _perceptual_losses(config).items()
        if (used := [layer for layer, weight in weights.items() if weight > 0])
    }
    if not deepest:
        return
    sides, scales = config.data.size, config.perceptual.scales
    for scale in scales:
        if any(side * scale % 1 for side in sides):
            yield Violation(
                ("perceptual.scales", "data.image_size"),
                f"{scale:g} of {_size(config)} is not a whole number of pixels",
            )
    least = min(sides) * min(scales)
    for key, layer in deepest.items():
        block, _ = _position(layer)
        needed = 2 ** (block - 1)  # a pooling halves the image before every block but the first
        if least < needed:
            yield Violation(
                ("perceptual.scales", f"{key}.{layer}", "data.image_size"),
                f"{min(scales):g} of {_size(config)} leaves {least:g} pixels; {key}.{layer} needs "
                f"at least {needed}; drop the scale or the layer",
            )


def division(config: Config, num_processes: int) -> Iterator[Violation]:
    """Rules of how a batch is divided among processes and micro-batches."""
    size = config.train.batch_size
    share, rest = divmod(size, num_processes)
    if rest:
        yield Violation(
            ("train.batch_size",),
            f"{size} samples cannot be divided among {num_processes} processes; it counts those of "
            "all processes together: set it to a multiple of their number",
        )
        return
    at_once = config.train.micro_batch or share
    if share % at_once:
        whole = f"train.batch_size, {size}"
        if num_processes > 1:
            whole = f"the {share} samples that each of {num_processes} processes takes of {whole}"
        yield Violation(
            ("train.micro_batch", "train.batch_size"), f"found {at_once}; must divide {whole}"
        )
    background = config.background
    if background is not None and background.foreign_probability > 0 and at_once == 1:
        found = f"found {background.foreign_probability:g} with one sample"
        reason = (
            f"{found} at a time; a background from another sample comes from the same batch: use "
            "at least 2"
        )
        if num_processes > 1:
            reason = (
                f"{found} of a batch in each process; the background of another sample comes from "
                f"the same process: set train.batch_size to at least {2 * num_processes}"
            )
        yield Violation(
            ("background.foreign_probability", "train.micro_batch", "train.batch_size"), reason
        )


def _train(config: Config) -> Iterator[Violation]:
    train = config.train
    yield from division(config, num_processes=1)
    if train.milestones != sorted(set(train.milestones)):
        yield Violation(
            ("train.milestones",), f"found {train.milestones}; each must be above the one before"
        )
    if any(milestone >= train.epochs for milestone in train.milestones):
        yield Violation(
            ("train.milestones", "train.epochs"),
            f"found {train.milestones}; each must be below train.epochs, {train.epochs}",
        )


RULES: tuple[Callable[[Config], Iterator[Violation]], ...] = (
    _branches,
    _background_needs_masks,
    _data,
    _motion_sizes,
    _mask_sizes,
    _starts,
    _ranges,
    _motion_problems,
    _reconstruction_losses,
    _discriminator_needs_motion,
    _discriminator_keypoints,
    _discriminator_sizes,
    _discriminator_losses,
    _cut,
    _perceptual_network,
    _perceptual_sizes,
    _train,
)


def _blocks_fit(
    config: Config, section: str, name: str, num_blocks: int, scale: float = 1.0
) -> Iterator[Violation]:
    """Both sides of the image must be multiples of 2^num_blocks / scale, as each block halves them.

    `num_blocks` is the value of the key `name` in `section`.
    """
    sides = math.gcd(*config.data.size)
    if sides % (2**num_blocks / scale) == 0:
        return
    most = 0
    while sides % (2 ** (most + 1) / scale) == 0:
        most += 1
    remedy = (
        f"the largest {name} that fits is {most}"
        if most
        else f"no {name} fits: data.image_size must be a multiple of {2 / scale:g}"
    )
    yield Violation(
        (f"{section}.{name}", section, "data.image_size"),
        f"found {num_blocks}, which at scale {scale:g} needs image sides that are multiples of "
        f"{2**num_blocks / scale:g}; data.image_size is {_size(config)}; {remedy}",
    )


def _kernel_fits(config: Config, section: str, scale: float) -> Iterator[Violation]:
    """The image at `scale` must not be smaller than the last kernel, which has no padding."""
    height, width = config.data.size
    if min(height, width) * scale < KERNEL:
        yield Violation(
            (f"{section}.scale", "data.image_size"),
            f"{scale:g} of {_size(config)} leaves {height * scale:g} x {width * scale:g} pixels; "
            f"the last convolution, without padding, needs {KERNEL}",
        )


def _perceptual_losses(config: Config) -> dict[str, dict[ReluLayer, float]]:
    """The perceptual loss weights of every branch, by VGG layer, under their dotted key."""
    return {
        f"{name}.losses.perceptual": branch.losses.perceptual
        for name, branch in config.branches.items()
    }


def _position(layer: ReluLayer) -> tuple[int, int]:
    """(block, convolution) of a VGG layer: relu4_2 is (4, 2)."""
    block, convolution = layer.removeprefix("relu").split("_")
    return int(block), int(convolution)


def _size(config: Config) -> str:
    height, width = config.data.size
    return f"{height} x {width}"
