"""Rules of the sections motion of other kinds than fomm, and of training a part of one."""

import pytest

from configs.loading import ConfigError, parse_config
from tests.helpers.factories import tiny_config
from tests.helpers.kinds import AVD, KINDS, TPSMM, X2FACE


def message(*overrides):
    with pytest.raises(ConfigError) as caught:
        tiny_config(*overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ("motion.inpainting.num_down_blocks=5",),
            "motion.inpainting.num_down_blocks: found 5, which leaves one pixel of 32 x 32, too "
            "little for an InstanceNorm; the largest number that fits is 4",
        ),
        (
            ("motion.dense_motion.num_blocks=4",),
            "motion.dense_motion.num_blocks: found 4, which leaves one pixel of 32 x 32, too "
            "little for an InstanceNorm; the largest number that fits is 3",
        ),
        (
            (AVD, "motion.avd.proportions=[1.25, 0.75]"),
            "motion.avd.proportions: found [1.25, 0.75]; the first is larger",
        ),
        (
            (AVD, "motion.losses.avd=0"),
            "motion.losses.avd: found 0 with the section motion.avd, which no other loss trains; "
            "set it to 1",
        ),
        (
            (AVD, "train.micro_batch=1"),
            "train.micro_batch: found one sample at a time; motion.avd normalizes over the "
            "samples: use at least 2",
        ),
        (("motion.clip_infinity_norm=0",), "motion.clip_infinity_norm: found 0; must be above 0"),
        (
            ("motion.background_motion.start_epoch=2",),
            "motion.background_motion.start_epoch: found 2 with train.epochs 2; the part that "
            "starts there would stay untrained",
        ),
    ],
)
def test_rules_of_tpsmm(overrides, expected):
    found = message(*KINDS["tpsmm"], *overrides)
    assert found.partition(": ")[2] == expected


def test_nothing_else_trains_in_the_second_stage():
    """Masks and background may be there, since they are frozen, whatever their start."""
    parts = ("motion.background_motion.start_epoch=100", "masks.refinement.start_epoch=100")
    config = tiny_config(TPSMM, AVD, *parts, "discriminator=null", "background.start_epoch=100")
    assert config.is_frozen
    assert config.starts == config.reconstructing_branches == {}
    assert list(config.branches) == ["motion", "masks", "background"]
    found = message(TPSMM, AVD)
    assert found.partition(": ")[2] == (
        "discriminator: found a section beside motion.avd, which trains with everything else "
        "frozen; set discriminator=null, or motion.avd=null"
    )


def test_one_side_may_be_a_pixel_where_the_other_is_more():
    tiny_config(*KINDS["tpsmm"], "data.image_size=[32, 64]", "motion.dense_motion.num_blocks=4")


def test_sides_of_x2face_are_powers_of_two():
    tiny_config(*KINDS["x2face"], "data.image_size=[32, 128]")
    found = message(*KINDS["x2face"], "data.image_size=[32, 96]")
    lines = [line for line in found.splitlines() if "power" in line]
    assert [line.strip().partition(": ")[2] for line in lines] == [
        f"data.image_size: found 32 x 96; motion.{name} halves both sides to 1, so each must be a "
        "power of two"
        for name in ("embedding", "driving")
    ]
    assert "power" not in message(*KINDS["x2face"], "data.image_size=[32, 80]")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.optimizer=adamw", "train.optimizer: found \"adamw\"; must be 'adam' or 'sgd'"),
        ("train.momentum=1", "train.momentum: found 1; must be below 1"),
        ("train.weight_decay=-1", "train.weight_decay: found -1; must be at least 0"),
    ],
)
def test_keys_of_the_optimizer(override, expected):
    assert message(override).partition(": ")[2] == expected


def test_defaults_are_as_published():
    train = tiny_config().train
    assert (train.optimizer, train.momentum, train.weight_decay) == ("adam", 0.9, 0.0)
    tree = {"data": {"kind": "puppets"}, "motion": {"kind": "tpsmm", "avd": {}}}
    motion = parse_config(tree, "a.yaml").motion
    assert motion.avd.proportions == [0.75, 1.25]
    assert (motion.avd.code, motion.losses.avd, motion.clip_infinity_norm) == (128, 1, 10)
    assert motion.infinity_limits == {}  # all of these are frozen
    first = tiny_config(TPSMM, "masks=null", "background=null", "discriminator=null").motion
    names = ("keypoint_detector", "dense_motion", "background_motion")
    assert first.infinity_limits == dict.fromkeys(names, 10.0)
    assert tiny_config(X2FACE, "discriminator=null").motion.infinity_limits == {}
