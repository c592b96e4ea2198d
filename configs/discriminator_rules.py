"""Rules of the section discriminator, and between it and the model whose predictions it gets."""

import math
from collections.abc import Iterator

from configs.schema import Config, DiscriminatorConfig
from configs.violation import Rule, Violation, image_size
from modules.discriminator import PatchDiscriminator


def _needs_motion(config: Config) -> Iterator[Violation]:
    if config.discriminator is not None and config.motion is None:
        yield Violation(
            ("discriminator", "motion"),
            "its input is the prediction of the motion branch, and motion is null; set "
            "discriminator=null, or give the section motion",
        )


def _keypoints(config: Config) -> Iterator[Violation]:
    discriminator, motion = config.discriminator, config.motion
    if discriminator and discriminator.keypoints and motion and motion.num_keypoints is None:
        yield Violation(
            ("discriminator.keypoints", "motion"),
            f"found true, and the motion model, of kind {motion.kind}, has no keypoints; set it to "
            "false",
        )


def _sizes(config: Config) -> Iterator[Violation]:
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
                f"{image_size(config)}; the largest number that fits is {most}",
            )
        return
    side = min(config.data.size)
    if discriminator.kind == "monkey_net":
        # Its last block pools behind the instance norm, which so has more than one position.
        if PatchDiscriminator.patch_side(side, num_blocks, pool_last=True) < 1:
            yield Violation(keys, f"{blocks} leave no patch of {image_size(config)}; give fewer")
    elif PatchDiscriminator.patch_side(side, num_blocks) < 2:
        # The instance norm of the last block needs more than one position.
        yield Violation(
            keys, f"{blocks} leave less than 2 x 2 patches of {image_size(config)}; give fewer"
        )


def _losses(config: Config) -> Iterator[Violation]:
    discriminator = config.discriminator
    if discriminator is None:
        return
    own, generators = discriminator.losses, discriminator.generator_losses
    heads = _heads(discriminator)
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
    names = [name for head in heads for name in (head, f"{head}_features")]
    if not any(any(_numbers(getattr(generators, name))) for name in names):
        yield Violation(
            ("discriminator.generator_losses", "discriminator.kind"),
            "no weight above 0; the discriminator would have no effect; set discriminator=null",
        )


def _layer_weights(config: Config) -> Iterator[Violation]:
    discriminator = config.discriminator
    if discriminator is None:
        return
    needed = len(discriminator.channels)  # encoder and decoder have as many blocks
    for head in _heads(discriminator):
        name = f"{head}_features"
        weights = getattr(discriminator.generator_losses, name)
        if isinstance(weights, list) and len(weights) != needed:
            found = ", ".join(f"{weight:g}" for weight in weights)
            yield Violation(
                (f"discriminator.generator_losses.{name}", "discriminator.channels"),
                f"found [{found}], and the {head} has {needed} blocks, as many as "
                "discriminator.channels; give each block a weight, 0 where it is not compared, or "
                "one number for all",
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


DISCRIMINATOR_RULES: tuple[Rule, ...] = (
    _needs_motion,
    _keypoints,
    _sizes,
    _losses,
    _layer_weights,
    _cut,
)


def _heads(discriminator: DiscriminatorConfig) -> tuple[str, ...]:
    """Whose logits and features the losses use; those of another kind are left out."""
    return ("encoder", "decoder") if discriminator.kind == "unet" else ("encoder",)


def _numbers(weights: float | list[float]) -> list[float]:
    return weights if isinstance(weights, list) else [weights]
