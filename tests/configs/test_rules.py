"""Tests of the rules between the keys of a config, and of their messages."""

import pytest
import torch

from configs.loading import ConfigError, load_config
from modules.discriminator import PatchDiscriminator

SMALL = (
    "data.image_size=[128, 64]",
    "perceptual.scales=[1, 0.5, 0.25]",
    "motion.keypoint_detector.num_blocks=4",
    "motion.dense_motion.num_blocks=4",
    "masks.mask_generator.num_blocks=4",
    "masks.refinement.num_blocks=4",
)
FITS_96 = (  # also needed for a side of 96
    "motion.keypoint_detector.num_blocks=3",
    "motion.dense_motion.num_blocks=3",
    "masks.mask_generator.num_blocks=3",
    "masks.refinement.num_blocks=3",
    "masks.high_resolution.num_blocks=5",
    "background.bg_refine.num_blocks=5",
)
PATCH = (
    "discriminator.kind=patch",
    "discriminator.channels=[64, 128]",
    "discriminator.cut.kind=none",
)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["motion.dense_motion.num_blocks=6"],
            "motion.dense_motion.num_blocks: found 6, which at scale 0.25 needs image sides that "
            "are multiples of 256; data.image_size is 128 x 64; the largest num_blocks that fits "
            "is 4",
        ),
        (
            ["motion.keypoint_detector.scale=0.0625", "motion.keypoint_detector.num_blocks=1"],
            "motion.keypoint_detector.scale: 0.0625 of 128 x 64 leaves 8 x 4 pixels; the last "
            "convolution, without padding, needs 7",
        ),
        (
            ["motion.generator.num_down_blocks=7"],
            "motion.generator.num_down_blocks: found 7, which at scale 1 needs image sides that "
            "are multiples of 128; data.image_size is 128 x 64; the largest num_down_blocks that "
            "fits is 6",
        ),
        (
            ["perceptual.scales=[1, 0.125]"],
            "perceptual.scales: 0.125 of 128 x 64 leaves 8 pixels; motion.losses.perceptual.relu5_1"
            " needs at least 16; drop the scale or the layer",
        ),
        (
            ["perceptual.network=vgg16", "motion.losses.perceptual={relu3_4: 1}"],
            "motion.losses.perceptual.relu3_4: perceptual.network vgg16 has no such layer; "
            "the last of block 3 is relu3_3",
        ),
        (
            ["perceptual.width=16", "perceptual.weights=vgg.pt"],
            "perceptual.width: found 16 with perceptual.weights vgg.pt, which have 64; "
            "another width is only for random weights",
        ),
        (
            ["train.micro_batch=6"],
            "train.micro_batch: found 6; must divide train.batch_size, 16",
        ),
        (
            ["train.milestones=[9, 9]"],
            "train.milestones: found [9, 9]; each must be above the one before",
        ),
        (
            ["train.milestones=[9, 10]", "train.epochs=10"],
            "train.milestones: found [9, 10]; each must be below train.epochs, 10",
        ),
        (
            ["motion.keypoint_detector.jacobian=none"],
            "motion.losses.equivariance_jacobian: found 10 with "
            "motion.keypoint_detector.jacobian none; set it to 0",
        ),
        (
            ["motion.losses.perceptual={relu1_1: 0}"],
            "motion.losses.perceptual: no weight above 0, nor is motion.losses.pixel; "
            "nothing would train the generator",
        ),
        (
            ["masks=null"],
            "background: the background branch needs the masks of the mask branch, and masks is "
            "null; set background=null, or give the section masks",
        ),
        *(
            (
                [f"masks.{network}.num_blocks=5"],
                f"masks.{network}.num_blocks: found 5, which at scale 0.25 needs image sides that "
                "are multiples of 128; data.image_size is 128 x 64; the largest num_blocks that "
                "fits is 4",
            )
            for network in ("mask_generator", "refinement")
        ),
        *(
            (
                [f"{network}.num_blocks=7"],
                f"{network}.num_blocks: found 7, which at scale 1 needs image sides that are "
                "multiples of 128; data.image_size is 128 x 64; the largest num_blocks that fits "
                "is 6",
            )
            for network in ("masks.high_resolution", "background.bg_refine")
        ),
        (
            [
                "masks.mask_generator.scale=0.0625",
                "masks.mask_generator.num_blocks=1",
                "masks.refinement.num_blocks=1",
            ],
            "masks.mask_generator.scale: 0.0625 of 128 x 64 leaves 8 x 4 pixels; the last "
            "convolution, without padding, needs 7",
        ),
        (
            ["masks.perturbation.pivots=[0.7, 0.2]"],
            "masks.perturbation.pivots: found [0.7, 0.2]; the first is larger",
        ),
        (
            ["data.augmentation.resize=[1.1, 0.9]"],
            "data.augmentation.resize: found [1.1, 0.9]; the first is larger",
        ),
        (
            ["masks.perturbation.scales=[1.25, 0.75]"],
            "masks.perturbation.scales: found [1.25, 0.75]; the first is larger",
        ),
        (
            ["masks.losses.perceptual={}"],
            "masks.losses.perceptual: no weight above 0, nor is masks.losses.pixel; nothing would "
            "train the generator",
        ),
        (
            ["background.losses.perceptual={relu1_1: 0}"],
            "background.losses.perceptual: no weight above 0, nor is background.losses.pixel; "
            "nothing would train the generator",
        ),
        *(
            (
                [f"background.{choice}_probability=0.5", f"train.{key}=1"],
                f"background.{choice}_probability: found 0.5 with one sample at a time; it takes "
                "another sample of the same batch: use at least 2",
            )
            for key in ("batch_size", "micro_batch")
            for choice in ("foreign", "hole")
        ),
        (
            ["train.epochs=2", "train.milestones=[]"],
            "background.start_epoch: found 2 with train.epochs 2; the part that starts there would "
            "stay untrained",
        ),
        (
            ["data.root=null"],
            "data.root: data.kind clips needs a folder with train/ and test/; set data.root",
        ),
    ],
)
def test_rule(overrides, expected):
    load_config("vox", SMALL)
    with pytest.raises(ConfigError) as caught:
        load_config("vox", [*SMALL, *overrides])
    _, found = str(caught.value).split(": ", 1)
    assert found == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["motion=null"],
            "discriminator: its input is the prediction of the motion branch, and motion is null; "
            "set discriminator=null, or give the section motion",
        ),
        (
            ["data.image_size=[128, 96]"],
            "discriminator.channels: 6 blocks of kind unet need image sides that are multiples of "
            "64; data.image_size is 128 x 96; the largest number that fits is 5",
        ),
        (
            ["discriminator.channels=[1, 1, 1, 1, 1, 1, 1]"],
            "discriminator.channels: 7 blocks of kind unet need image sides that are multiples of "
            "128; data.image_size is 128 x 64; the largest number that fits is 6",
        ),
        (
            # The blocks shrink 64 pixels to 30, 13, 5 and 1, and nothing is left for the fifth.
            ["discriminator.kind=patch", "discriminator.cut.kind=none"],
            "discriminator.channels: 6 blocks of kind patch leave less than 2 x 2 patches of "
            "128 x 64; give fewer",
        ),
        (
            ["discriminator.losses.encoder=0", "discriminator.losses.decoder=0"],
            "discriminator.losses: encoder and decoder are 0; the discriminator would not "
            "learn to tell real from generated",
        ),
        (
            [*PATCH, "discriminator.losses.encoder=0"],
            "discriminator.losses: encoder is 0; the discriminator would not learn to tell "
            "real from generated",
        ),
        *(
            (
                [f"discriminator.losses.{head}=0"],
                f"discriminator.generator_losses.{head}: found 0.5 with discriminator.losses."
                f"{head} 0; the generator would learn from an untrained output; set it to 0 too",
            )
            for head in ("encoder", "decoder")
        ),
        *(
            (
                [*kind, *(f"discriminator.generator_losses.{name}=0" for name in names)],
                "discriminator.generator_losses: no weight above 0; the discriminator would "
                "have no effect; set discriminator=null",
            )
            for kind, names in (
                ([], ("encoder", "decoder", "encoder_features", "decoder_features")),
                (PATCH, ("encoder", "encoder_features")),
            )
        ),
        (
            [
                *PATCH,
                "discriminator.generator_losses.encoder=0",
                "discriminator.generator_losses.encoder_features=[0, 0]",
            ],
            "discriminator.generator_losses: no weight above 0; the discriminator would have no "
            "effect; set discriminator=null",
        ),
        *(
            (
                [*kind, f"discriminator.generator_losses.{head}_features={weights}"],
                f"discriminator.generator_losses.{head}_features: found {weights}, and the {head} "
                f"has {number} blocks, as many as discriminator.channels; give each block a "
                "weight, 0 where it is not compared, or one number for all",
            )
            for kind, head, weights, number in (
                ([], "encoder", [10, 10, 10, 0.5], 6),
                ([], "decoder", [1, 2, 3, 4, 5, 6, 7], 6),
                (PATCH, "encoder", [10], 2),
                (PATCH, "encoder", [10, 1, 1], 2),
                ([*PATCH, "discriminator.kind=monkey_net"], "encoder", [10, 1, 0], 2),
            )
        ),
        (
            ["discriminator.losses.consistency=0"],
            "discriminator.cut.kind: found priority with discriminator.losses.consistency 0 and "
            "discriminator.cut.as_sample false; nothing would use the mixed images; set it to none",
        ),
        *(
            (
                [*PATCH, f"discriminator.cut.kind={kind}"],
                f"discriminator.cut.kind: found {kind} with discriminator.kind patch; only kind "
                "unet rates the pixels of a mixed image; set it to none",
            )
            for kind in ("rectangle", "priority")
        ),
        *(
            (
                ["motion.dense_motion.occlusion=false", f"discriminator.cut.kind={kind}"],
                "discriminator.cut.occlusion: found map, and the motion model, of kind fomm, "
                "predicts no occlusion map; set it to field, motion.dense_motion.occlusion to "
                "true, or discriminator.cut.kind to none",
            )
            for kind in ("rectangle", "priority")
        ),
        (
            ["masks=null", "background=null", "discriminator.cut.foreground=mask_generator"],
            "discriminator.cut.foreground: found mask_generator, and masks is null; set it to "
            "dense_motion, or give the section masks",
        ),
    ],
)
def test_rule_of_the_discriminator(overrides, expected):
    small = [*SMALL, *FITS_96]
    if "motion=null" in overrides:  # a key of the section would switch it on again
        small = [override for override in small if not override.startswith("motion.")]
    load_config("vox", [*SMALL, *FITS_96])
    with pytest.raises(ConfigError) as caught:
        load_config("vox", [*small, *overrides])
    _, found = str(caught.value).split(": ", 1)
    assert found == expected


def with_four_blocks(height, width, kind):
    """Arguments of `load_config`: images of any even size, a discriminator of four blocks."""
    sizes = [f"data.image_size=[{height}, {width}]", "perceptual.scales=[1]"]
    nets = ("motion.keypoint_detector", "motion.dense_motion")
    sizes += [f"{net}.{key}=1" for net in nets for key in ("scale", "num_blocks")]
    sizes += ["motion.generator.num_down_blocks=1"]
    return "vox-fomm", [*sizes, f"discriminator.kind={kind}", "discriminator.channels=[2, 2, 2, 2]"]


@pytest.mark.parametrize(("side", "left"), [(48, 0), (60, 1), (64, 2), (72, 3)])
def test_the_rule_of_patches_agrees_with_the_network(side, left):
    """The instance norm of the last block fails on a map of 1 x 1."""
    assert PatchDiscriminator.patch_side(side, 4) == left
    network = PatchDiscriminator(3, [2, 2, 2, 2], use_spectral_norm=False)
    image = torch.zeros(1, 3, side, side)
    config = with_four_blocks(side, side, "patch")
    if left >= 2:
        assert network(image).logits.shape == (1, 1, left, left)
        load_config(*config)
        return
    with pytest.raises((RuntimeError, ValueError)):
        network(image)
    with pytest.raises(ConfigError, match="4 blocks of kind patch leave less than"):
        load_config(*config)


@pytest.mark.parametrize(("num_blocks", "least"), [(1, 5), (2, 13), (3, 29), (4, 61)])
def test_the_smallest_image_of_the_discriminator_of_monkey_net(num_blocks, least):
    """conv4x4 takes 3 pixels of a side, the pool halves the rest: n need 2 n + 3, per block."""
    network = PatchDiscriminator(3, [2] * num_blocks, False, pool_last=True)
    for height, width in ((least, least), (least, 2 * least)):
        logits = network(torch.rand(1, 3, height, width)).logits
        assert logits.shape[-2] == network.patch_side(height, num_blocks, pool_last=True) == 1
        assert torch.isfinite(logits).all()
    assert network.patch_side(least - 1, num_blocks, pool_last=True) < 1
    for height, width in ((least - 1, least - 1), (least - 1, 2 * least), (2 * least, least - 1)):
        with pytest.raises((RuntimeError, ValueError)):
            network(torch.rand(1, 3, height, width))


@pytest.mark.parametrize(("height", "width"), [(62, 62), (62, 128), (60, 60), (60, 128), (128, 60)])
def test_the_rule_of_the_discriminator_of_monkey_net(height, width):
    """Networks of the motion need even sides: next to 61, the limit, are 60 and 62."""
    config = with_four_blocks(height, width, "monkey_net")
    if min(height, width) == 62:
        load_config(*config)
        return
    reason = f"4 blocks of kind monkey_net leave no patch of {height} x {width}; give fewer"
    with pytest.raises(ConfigError, match=f"discriminator.channels: {reason}"):
        load_config(*config)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.kind=puppets", "data.root=null"],
        ["train.micro_batch=16"],
        ["train.micro_batch=1"],
        ["train.micro_batch=2", "background.foreign_probability=0.5"],
        ["train.micro_batch=2", "background.hole_probability=0.5"],
        ["masks.perturbation.pivots=[0.5, 0.5]", "masks.perturbation.scales=[1, 1]"],
        ["masks.losses.perceptual={}", "masks.losses.pixel=1"],
        ["masks=null", "background=null"],
        ["motion=null", "discriminator=null"],
        [*PATCH, "discriminator.losses.decoder=0", "discriminator.losses.consistency=0"],
        [*PATCH, "discriminator.keypoints=true"],
        ["discriminator.losses.encoder=0", "discriminator.generator_losses.encoder=0"],
        ["discriminator.losses.decoder=0", "discriminator.generator_losses.decoder=0"],
        ["discriminator.losses.consistency=0", "discriminator.cut.as_sample=true"],
        [*PATCH, "discriminator.generator_losses.encoder=0"],  # feature matching alone
        [*PATCH, "discriminator.generator_losses.encoder_features=[0, 1]"],
        [*PATCH, "discriminator.generator_losses.decoder_features=[0, 1, 2]"],  # not used
        [
            f"discriminator.generator_losses.{head}_features=[10, 10, 10, 1, 0, 0]"
            for head in ("encoder", "decoder")
        ],
        ["discriminator.cut.kind=none", "motion.dense_motion.occlusion=false"],
        ["background=null", "discriminator.cut.foreground=mask_generator"],
        ["discriminator.channels=[1, 1, 1, 1, 1, 1, 1, 1]"],  # from 256 x 256 to one pixel
        ["perceptual.width=16", "perceptual.weights=random"],
        ["motion.losses.perceptual={relu3_4: 1}"],
        ["motion.keypoint_detector.jacobian=none", "motion.losses.equivariance_jacobian=0"],
        [
            *("motion.losses.perceptual={}", "motion.losses.pixel=1"),
            *("masks=null", "background=null", "perceptual.scales=[0.001953125]"),
        ],
        ["motion.losses.perceptual={relu4_3: 1, relu5_1: 0}", "perceptual.scales=[0.03125]"],
    ],
)
def test_configs_that_the_rules_allow(overrides):
    load_config("vox", overrides)
