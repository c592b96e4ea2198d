"""The low-resolution generator: its Up blocks, inputs of any number of channels, precision."""

import pytest
import torch
from torch.testing import assert_close

from modules.low_resolution_generator import LowResolutionGenerator


def generator(num_up_blocks=1, in_channels=5, max_width=8, num_res_blocks=2):
    torch.manual_seed(0)
    return LowResolutionGenerator(
        in_channels=in_channels,
        width=4,
        max_width=max_width,
        num_up_blocks=num_up_blocks,
        num_res_blocks=num_res_blocks,
    )


@torch.no_grad()
@pytest.mark.parametrize(
    ("scale", "num_up_blocks", "channels"),
    [(1.0, 0, [4]), (0.5, 1, [8, 4]), (0.25, 2, [12, 8, 4])],
)
def test_up_blocks_bring_the_maps_to_the_size_of_the_picture(scale, num_up_blocks, channels):
    network = generator(num_up_blocks, max_width=12).eval()
    found = [block.conv.out_channels for block in network.up_blocks]
    assert [network.first.conv.out_channels, *found] == channels
    maps = torch.rand(2, 5, round(32 * scale), round(48 * scale))
    picture = network(maps)
    assert picture.shape == (2, 3, 32, 48)
    assert 0 < picture.min() < picture.max() < 1


@torch.no_grad()
def test_maps_are_joined_in_order():
    network = generator(in_channels=4).eval()
    first, second = torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)
    joined = network(torch.cat((first, second), dim=1))
    assert torch.equal(network(first, second), joined)
    assert not torch.allclose(network(second, first), joined, atol=1e-4)


def test_number_of_residual_blocks():
    assert list(dict(generator(num_res_blocks=3).bottleneck.named_children())) == ["r0", "r1", "r2"]


@pytest.mark.parametrize("num_up_blocks", [0, 1, 2])
def test_every_parameter_receives_a_gradient(num_up_blocks):
    network = generator(num_up_blocks)
    network(torch.rand(2, 5, 8, 8)).square().mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    assert all(gradients[name].any() for name in gradients if name.endswith("weight"))


@torch.no_grad()
def test_float32_under_autocast():
    network, maps = generator().eval(), torch.rand(2, 5, 8, 8)
    plain = network(maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        picture = network(maps)
    assert picture.dtype == torch.float32
    assert_close(picture, plain, atol=0.02, rtol=0)
