"""Monkey-Net's discriminator: sizes, features, every parameter learns."""

import pytest
import torch

from modules.discriminator import DiscriminatorOutput
from modules.monkey_net.discriminator import MonkeyNetDiscriminator

PUBLISHED = [64, 128, 256, 256]


@pytest.mark.parametrize(("side", "patches"), [(256, 13), (128, 5), (64, 1)])
def test_every_block_pools(side, patches):
    assert MonkeyNetDiscriminator.patch_side(side, len(PUBLISHED)) == patches
    with torch.device("meta"):
        output = MonkeyNetDiscriminator(13, PUBLISHED, False)(torch.empty(2, 13, side, side))
    assert isinstance(output, DiscriminatorOutput)
    assert output.logits.shape == (2, 1, patches, patches)
    assert output.pixel_logits is None
    assert output.decoder_features == []
    assert [features.shape[1] for features in output.encoder_features] == PUBLISHED
    assert output.encoder_features[-1].shape[-1] == patches


def test_too_small():
    assert MonkeyNetDiscriminator.patch_side(32, len(PUBLISHED)) < 1


def test_no_norm_in_the_first_block():
    names = MonkeyNetDiscriminator(5, [4, 8], False).state_dict().keys()
    assert {name.rpartition(".")[0] for name in names} == {
        "down_blocks.0.conv",
        "down_blocks.1.conv",
        "down_blocks.1.norm",
        "conv",
    }


def test_spectral_norm_of_every_convolution():
    names = MonkeyNetDiscriminator(5, [4, 8], True).state_dict().keys()
    expected = {"down_blocks.0.conv.weight_u", "down_blocks.1.conv.weight_u", "conv.weight_u"}
    assert {name for name in names if name.endswith("_u")} == expected


@pytest.mark.parametrize("use_spectral_norm", [False, True])
def test_every_parameter_gets_a_gradient(use_spectral_norm):
    network = MonkeyNetDiscriminator(5, [4, 8, 8], use_spectral_norm)
    output = network(torch.rand(2, 5, 64, 64))
    output.logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def test_logits_stay_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = MonkeyNetDiscriminator(5, [4, 8], False)(torch.rand(2, 5, 32, 32))
    assert output.logits.dtype == torch.float32
    assert output.encoder_features[0].dtype == torch.bfloat16
