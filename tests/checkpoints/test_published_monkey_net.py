"""Names and kernels of Monkey-Net's published files, there and back."""

import pytest
import torch

from checkpoints.published_monkey_net import (
    by_own_names,
    is_monkey_net,
    own_name,
    own_tensor,
    published_name,
)

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
def test_names_there_and_back(published, own):
    assert own_name(*published) == own
    assert published_name(*own) == published


def test_names_that_the_other_side_lacks():
    assert own_name("generator", "down.weight") is None
    assert own_name("bg_predictor", "predictor.conv.weight") is None
    assert published_name("dense_motion", "occlusion.weight") is None  # the head is ours


def test_kernels_lose_their_third_axis_alone():
    assert own_tensor(torch.empty(8, 1, 1, 3, 3)).shape == (8, 1, 3, 3)
    assert own_tensor(torch.empty(8, 4, 1, 1, 1)).shape == (8, 4, 1, 1)
    for shape in ((1,), (), (3, 1, 1, 1)):
        assert own_tensor(torch.empty(shape)).shape == shape


def test_parts_of_a_file():
    parts = {
        "kp_detector": {"predictor.decoder.conv.bias": torch.zeros(5)},
        "generator": {
            "refinement_module.conv-last.weight": torch.zeros(3, 4, 1, 1, 1),
            "gru.weight": torch.zeros(2),
        },
    }
    found = by_own_names(parts)
    assert found.networks.keys() == {"keypoint_detector", "generator"}
    assert found.networks["generator"]["final.weight"].shape == (3, 4, 1, 1)
    assert found.unused == ["generator.gru.weight"]


def test_five_axes_tell_it_from_fomm():
    kernel = torch.zeros(3, 4, 1, 1)
    assert not is_monkey_net({"kp_detector": {}, "generator": {"final.weight": kernel}})
    assert not is_monkey_net({"mask_generator": {}, "generator": {"x": kernel.unsqueeze(2)}})
    assert is_monkey_net({"kp_detector": {}, "generator": {"x": kernel.unsqueeze(2)}})
