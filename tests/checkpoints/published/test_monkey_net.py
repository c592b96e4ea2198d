"""Published files of Monkey-Net: names in both directions, kernels, and how they are recognized."""

import pytest
import torch

from checkpoints.published.conversion import convert
from checkpoints.published.layout import own_name
from checkpoints.published.monkey_net import PLACES, read
from tests.helpers.published_files import FOMM, MONKEY_NET, published_name

NAMES = {
    ("kp_detector", "predictor.encoder.down_blocks.0.conv.weight"): (
        "keypoint_detector",
        "predictor.encoder.down_blocks.0.conv.weight",
    ),
    ("kp_detector", "predictor.decoder.conv.bias"): ("keypoint_detector", "kp.bias"),
    ("generator", "dense_motion_module.group_blocks.1.norm.running_var"): (
        "dense_motion",
        "group_blocks.1.norm.running_var",
    ),
    ("generator", "dense_motion_module.hourglass.decoder.up_blocks.2.norm.bias"): (
        "dense_motion",
        "hourglass.decoder.up_blocks.2.norm.bias",
    ),
    ("generator", "dense_motion_module.hourglass.decoder.conv.weight"): (
        "dense_motion",
        "weights_and_correction.weight",
    ),
    ("generator", "appearance_encoder.down_blocks.6.conv.weight"): (
        "generator",
        "encoder.down_blocks.6.conv.weight",
    ),
    ("generator", "video_decoder.up_blocks.0.conv.weight"): (
        "generator",
        "up_blocks.0.conv.weight",
    ),
    ("generator", "refinement_module.r3.conv2.weight"): ("generator", "refinement.r3.conv2.weight"),
    ("generator", "refinement_module.conv-last.weight"): ("generator", "final.weight"),
    ("discriminator", "down_blocks.1.norm.weight"): ("discriminator", "down_blocks.1.norm.weight"),
    ("discriminator", "conv.bias"): ("discriminator", "conv.bias"),
}


@pytest.mark.parametrize(("published", "own"), NAMES.items())
def test_names_in_both_directions(published, own):
    assert own_name(PLACES, *published) == own
    assert published_name(PLACES, *own) == published


def test_names_that_only_one_side_has():
    assert own_name(PLACES, "generator", "down.weight") is None
    assert own_name(PLACES, "bg_predictor", "predictor.conv.weight") is None
    with pytest.raises(KeyError):
        published_name(PLACES, "dense_motion", "occlusion.weight")  # only our networks have it


def test_kernels_lose_their_third_axis_and_other_tensors_stay():
    parts = {
        "kp_detector": {"predictor.decoder.conv.bias": torch.zeros(5)},
        "generator": {
            "refinement_module.conv-last.weight": torch.zeros(3, 4, 1, 1, 1),
            "refinement_module.r0.norm1.num_batches_tracked": torch.zeros(()),
            "appearance_encoder.down_blocks.0.conv.weight": torch.zeros(8, 1, 1, 3, 3),
            "gru.weight": torch.zeros(2, 3, 1, 1),
        },
    }
    found = read(parts)
    assert found is not None
    assert found.tensors.networks.keys() == {"keypoint_detector", "generator"}
    shapes = {
        name: tuple(tensor.shape) for name, tensor in found.tensors.networks["generator"].items()
    }
    assert shapes == {
        "final.weight": (3, 4, 1, 1),
        "refinement.r0.norm1.num_batches_tracked": (),
        "encoder.down_blocks.0.conv.weight": (8, 1, 3, 3),
    }
    assert found.tensors.unused == ["generator.gru.weight"]


def test_kernels_with_five_axes_distinguish_it_from_fomm():
    assert read(FOMM.content(FOMM.config())) is None
    assert convert(FOMM.content(FOMM.config())).kind == "fomm"
    assert convert(MONKEY_NET.content(MONKEY_NET.config())).kind == "monkey_net"
    kernel = torch.zeros(3, 4, 1, 1, 1)
    assert read({"mask_generator": {"x": kernel}, "generator": {"x": kernel}}) is None


@pytest.mark.parametrize("use_difference", [False, True])
def test_use_difference_follows_from_the_group_blocks(use_difference):
    key = "motion.dense_motion.use_difference"
    config = MONKEY_NET.config(f"{key}={str(use_difference).lower()}")
    assert convert(MONKEY_NET.content(config)).settings[key] == use_difference
