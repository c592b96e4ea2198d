"""The mask generator: border, temperature, sizes, precision."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from modules.mask_generator import BORDER, MaskGenerator, mask_from_logits


def mask_generator(scale=0.5, num_blocks=2, temperature=0.1):
    torch.manual_seed(0)
    return MaskGenerator(
        width=4, max_width=8, num_blocks=num_blocks, scale=scale, temperature=temperature
    )


class Fixed(nn.Module):
    """A convolution that gives the same map for any input."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, features):
        return self.logits


@pytest.mark.parametrize(
    ("height", "width", "scale", "size"),
    [
        (32, 32, 0.5, (16, 16)),
        (32, 64, 0.5, (16, 32)),
        (64, 32, 0.25, (16, 8)),
        (16, 24, 1.0, (16, 24)),
    ],
)
def test_mask_has_the_size_of_the_frame_times_the_scale(height, width, scale, size):
    network, frame = mask_generator(scale), torch.rand(2, 3, height, width)
    assert network.logits(frame).shape == (2, 1, size[0] - 6, size[1] - 6)
    mask = network(frame)
    assert mask.shape == (2, 1, *size)
    assert 0 <= mask.min() < mask.max() <= 1


def test_border_is_background_and_nothing_else_is():
    mask = mask_generator()(torch.rand(2, 3, 32, 32))
    inside = mask[..., 3:-3, 3:-3].clone()
    assert (inside > 0).all()
    mask[..., 3:-3, 3:-3] = 0
    assert not mask.any()
    assert BORDER == 3


def test_logits_are_divided_by_the_temperature():
    network = mask_generator(temperature=0.5)
    network.ref = Fixed(torch.tensor([[[[0.0, 0.5, -1.0]]]]))
    frame = torch.rand(1, 3, 32, 32)
    assert network.logits(frame).tolist() == [[[[0.0, 1.0, -2.0]]]]
    expected = torch.tensor([0.5, 1 / (1 + 0.36787944), 1 / (1 + 7.38905610)])  # e^-1 and e^2
    mask = network(frame)
    assert mask.shape == (1, 1, 7, 9)
    assert_close(mask[0, 0, 3, 3:-3], expected)


def test_mask_is_that_of_the_logits():
    network, frame = mask_generator(), torch.rand(2, 3, 32, 32)
    assert torch.equal(network(frame), mask_from_logits(network.logits(frame)))


def test_no_skip_connection():
    """If the bottleneck's output is set to 0, every frame has the same mask."""
    network = mask_generator().eval()
    deepest = network.predictor.encoder.down_blocks[-1]
    deepest.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    first, second = (network(torch.rand(1, 3, 32, 32)) for _ in range(2))
    assert torch.equal(first, second)
    assert network.ref.in_channels == network.predictor.out_channels == 4


def test_float32_under_autocast_and_channels_last():
    network, frame = mask_generator(), torch.rand(2, 3, 32, 32)
    plain = network.logits(frame)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, mask = network.logits(frame), network(frame)
    assert logits.dtype == mask.dtype == torch.float32
    assert_close(logits, plain, atol=0.02 * plain.abs().max().item(), rtol=0)
    layout = torch.channels_last
    network.to(memory_format=layout)
    assert_close(network.logits(frame.to(memory_format=layout)), plain, atol=1e-4, rtol=0)
