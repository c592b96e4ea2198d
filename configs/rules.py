"""Rules between the keys of a config. The range of a single key is in `schema.py`."""

import math
from collections.abc import Iterator

from configs.discriminator_rules import DISCRIMINATOR_RULES
from configs.motion.fomm import FommConfig
from configs.motion.section import Halvings
from configs.schema import BRANCHES, Config
from configs.value_types import ReluLayer
from configs.violation import Rule, Violation, image_size
from modules.mask_generator import KERNEL
from modules.vgg import CONVS_PER_BLOCK

VGG_WIDTH = 64  # channels of the first layer of every published VGG


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
        yield from _rest_fits(config, part)
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
    for name, branch in config.reconstructing_branches.items():
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


def _frozen_motion(config: Config) -> Iterator[Violation]:
    if config.is_frozen and config.discriminator is not None:
        yield Violation(
            ("discriminator", "motion.avd"),
            "found a section beside motion.avd, which trains with everything else frozen; set "
            "discriminator=null, or motion.avd=null",
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
                f"{scale:g} of {image_size(config)} is not a whole number of pixels",
            )
    least = min(sides) * min(scales)
    for key, layer in deepest.items():
        block, _ = _position(layer)
        needed = 2 ** (block - 1)  # a pooling halves the image before every block but the first
        if least < needed:
            yield Violation(
                ("perceptual.scales", f"{key}.{layer}", "data.image_size"),
                f"{min(scales):g} of {image_size(config)} leaves {least:g} pixels; {key}.{layer} "
                f"needs at least {needed}; drop the scale or the layer",
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
    if config.is_frozen and at_once == 1:
        yield Violation(
            ("train.micro_batch", "train.batch_size", "motion.avd"),
            "found one sample at a time; motion.avd normalizes over the samples: use at least 2",
        )
    if config.background is not None and at_once == 1:
        for key, value in config.background.needing_another_sample.items():
            found = f"found {value:g} with one sample"
            reason = f"{found} at a time; it takes another sample of the same batch: use at least 2"
            if num_processes > 1:
                reason = (
                    f"{found} of a batch in each process; it takes another sample of the same "
                    f"process: set train.batch_size to at least {2 * num_processes}"
                )
            keys = (f"background.{key}", "train.micro_batch", "train.batch_size")
            yield Violation(keys, reason)


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


RULES: tuple[Rule, ...] = (
    _branches,
    _background_needs_masks,
    _data,
    _motion_sizes,
    _mask_sizes,
    _starts,
    _ranges,
    _motion_problems,
    _reconstruction_losses,
    _frozen_motion,
    *DISCRIMINATOR_RULES,
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
        f"{2**num_blocks / scale:g}; data.image_size is {image_size(config)}; {remedy}",
    )


def _rest_fits(config: Config, part: Halvings) -> Iterator[Violation]:
    """What `part` leaves of the image must suit its innermost layers."""
    keys = (f"{part.section}.{part.key}", part.section, "data.image_size")
    height, width = (side * part.scale / 2**part.number for side in config.data.size)
    if part.rest == "several" and height == width == 1:
        yield Violation(
            keys,
            f"found {part.number}, which leaves one pixel of {image_size(config)}, too little for "
            f"an InstanceNorm; the largest number that fits is {part.number - 1}",
        )
    mantissas = {math.frexp(side)[0] for side in (height, width)}
    if part.rest == "power_of_two" and height % 1 == width % 1 == 0 and mantissas != {0.5}:
        yield Violation(
            ("data.image_size", part.section),
            f"found {image_size(config)}; {part.section} halves both sides to 1, so each must be a "
            "power of two",
        )


def _kernel_fits(config: Config, section: str, scale: float) -> Iterator[Violation]:
    """The image at `scale` must not be smaller than the last kernel, which has no padding."""
    height, width = config.data.size
    if min(height, width) * scale < KERNEL:
        yield Violation(
            (f"{section}.scale", "data.image_size"),
            f"{scale:g} of {image_size(config)} leaves {height * scale:g} x {width * scale:g} "
            f"pixels; the last convolution, without padding, needs {KERNEL}",
        )


def _perceptual_losses(config: Config) -> dict[str, dict[ReluLayer, float]]:
    """The perceptual loss weights of every branch, by VGG layer, under their dotted key."""
    return {
        f"{name}.losses.perceptual": branch.losses.perceptual
        for name, branch in config.reconstructing_branches.items()
    }


def _position(layer: ReluLayer) -> tuple[int, int]:
    """(block, convolution) of a VGG layer: relu4_2 is (4, 2)."""
    block, convolution = layer.removeprefix("relu").split("_")
    return int(block), int(convolution)
