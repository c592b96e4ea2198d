"""The high-resolution generator: sizes, skips, precision."""

import pytest
import torch
from torch.testing import assert_close

from modules.high_resolution_generator import HighResolutionGenerator


def generator(in_channels=8, shown=()):
    torch.manual_seed(0)
    return HighResolutionGenerator(in_channels, 4, 8, num_blocks=2, shown=shown)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width", "in_channels"), [(16, 16, 8), (8, 28, 11)])
def test_picture_has_the_size_of_the_maps(height, width, in_channels):
    network = generator(in_channels).eval()
    maps = torch.rand(2, in_channels, height, width)
    picture = network(maps[:, :3], maps[:, 3:])
    assert picture.shape == (2, 3, height, width)
    assert 0 < picture.min() < picture.max() < 1
    assert torch.equal(network(maps), picture)  # joined in order


@torch.no_grad()
def test_detail_of_the_input_bypasses_the_bottleneck():
    network = generator().eval()
    for block in network.hourglass.encoder.down_blocks:
        block.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    first, second = (network(torch.rand(1, 8, 16, 16)) for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("shown", [(-2, -1), (2, 1)])
def test_shows_maps_by_weights_of_a_softmax(shown):
    """The channels are a painted picture, then the weights of it and of the maps in order."""
    network = generator(shown=shown).eval()
    maps = [torch.rand(1, channels, 16, 16) for channels in (2, 3, 3)]
    network.final_hourglass.weight.zero_()
    weights = torch.tensor([0.5, 0.2, 0.3])
    network.final_hourglass.bias.copy_(torch.cat((torch.zeros(3), weights.log())))
    first, second = (maps[place] for place in shown)
    expected = 0.5 * 0.5 + 0.2 * first + 0.3 * second  # painted: the sigmoid of 0
    assert_close(network(*maps), expected)


@pytest.mark.parametrize("shown", [(), (-2, -1)])
def test_every_parameter_receives_a_gradient(shown):
    network = generator(shown=shown)
    maps = torch.rand(2, 8, 16, 16).split((2, 3, 3), dim=1)
    network(*maps).square().mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    assert all(gradients[name].any() for name in gradients if name.endswith("weight"))


@torch.no_grad()
@pytest.mark.parametrize("shown", [(), (-2, -1)])
def test_float32_under_autocast(shown):
    network = generator(shown=shown).eval()
    maps = torch.rand(2, 8, 16, 16).split((2, 3, 3), dim=1)
    plain = network(*maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        picture = network(*maps)
    assert picture.dtype == torch.float32
    assert_close(picture, plain, atol=0.02, rtol=0)
