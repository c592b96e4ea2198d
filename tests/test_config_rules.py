"""What must agree between the keys of a config, and how a disagreement is put."""

import pytest

from config_file import ConfigError, load_config

SMALL = (
    "data.image_size=[128, 64]",
    "perceptual.scales=[1, 0.5, 0.25]",
    "motion.keypoint_detector.num_blocks=4",
    "motion.dense_motion.num_blocks=4",
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
    "overrides",
    [
        ["data.kind=puppets", "data.root=null"],
        ["train.micro_batch=16"],
        ["perceptual.width=16", "perceptual.weights=random"],
        ["motion.losses.perceptual={relu3_4: 1}"],
        ["motion.keypoint_detector.jacobian=none", "motion.losses.equivariance_jacobian=0"],
        ["motion.losses.perceptual={}", "motion.losses.pixel=1", "perceptual.scales=[0.001953125]"],
        ["motion.losses.perceptual={relu4_3: 1, relu5_1: 0}", "perceptual.scales=[0.03125]"],
    ],
)
def test_what_the_rules_allow(overrides):
    load_config("vox", overrides)
