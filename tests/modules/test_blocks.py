"""Anti-aliased downsampling against its formula; shapes and skips of the hourglass."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from modules import blocks
from modules.blocks import (
    AntiAliasDownsample,
    DownBlock,
    Hourglass,
    ResBlock,
    SameBlock,
    UpBlock,
    UpConv2d,
)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_downsampling_is_a_gaussian_and_every_nth_pixel(stride):
    image = torch.rand(1, 2, 24, 40, dtype=torch.float64)
    sigma = (stride - 1) / 2
    radius = round(4 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    squares = offsets[:, None] ** 2 + offsets[None, :] ** 2
    kernel = torch.exp(-squares / (2 * sigma**2))
    kernel /= kernel.sum()
    blurred = F.conv2d(image, kernel.expand(2, 1, -1, -1), padding=radius, groups=2)
    downsampled = AntiAliasDownsample(1 / stride)(image)
    assert downsampled.shape == (1, 2, 24 // stride, 40 // stride)
    assert_close(downsampled, blurred[..., ::stride, ::stride], atol=1e-6, rtol=0)


def test_scale_one_is_the_identity():
    image = torch.rand(1, 3, 5, 7)
    assert AntiAliasDownsample(1)(image) is image


def test_downsampling_stays_in_float32_under_autocast():
    image = torch.rand(1, 3, 16, 16)
    down = AntiAliasDownsample(0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = down(image)
    assert torch.equal(inside, down(image))


def test_kernel_is_not_part_of_a_checkpoint():
    assert not AntiAliasDownsample(0.25).state_dict()


@pytest.mark.parametrize(
    ("height", "width", "num_blocks"), [(8, 8, 3), (16, 32, 3), (12, 4, 2), (6, 2, 1)]
)
def test_hourglass_keeps_the_size(height, width, num_blocks):
    hourglass = Hourglass(width=4, in_channels=5, max_width=12, num_blocks=num_blocks)
    output = hourglass(torch.rand(2, 5, height, width))
    assert output.shape == (2, 4 + 5, height, width)
    assert hourglass.out_channels == 9


def test_hourglass_channels_double_up_to_the_maximum():
    hourglass = Hourglass(width=4, in_channels=3, max_width=12, num_blocks=3)
    down = [
        (b.conv.in_channels, b.conv.out_channels) for b in hourglass.encoder.down_blocks.children()
    ]
    up = [(b.conv.in_channels, b.conv.out_channels) for b in hourglass.decoder.up_blocks.children()]
    assert down == [(3, 8), (8, 12), (12, 12)]
    assert up == [(12, 12), (24, 8), (16, 4)]  # from the second on with a skip concatenated


def test_the_input_itself_is_the_last_skip():
    image = torch.rand(2, 3, 8, 8)
    output = Hourglass(width=4, in_channels=3, max_width=8, num_blocks=2)(image)
    assert torch.equal(output[:, 4:], image)


def test_width_is_capped_in_out_channels_too():
    hourglass = Hourglass(width=16, in_channels=3, max_width=8, num_blocks=1)
    assert hourglass(torch.rand(1, 3, 4, 4)).shape[1] == hourglass.out_channels == 11


@pytest.mark.parametrize(("height", "width", "num_blocks"), [(8, 8, 3), (12, 4, 2), (6, 2, 1)])
def test_hourglass_without_skips(height, width, num_blocks):
    hourglass = Hourglass(4, in_channels=5, max_width=12, num_blocks=num_blocks, skips=False)
    output = hourglass(torch.rand(2, 5, height, width))
    assert output.shape == (2, 4, height, width)
    assert hourglass.out_channels == 4


def test_without_skips_the_decoder_takes_one_map_at_a_time():
    hourglass = Hourglass(width=4, in_channels=3, max_width=12, num_blocks=3, skips=False)
    up = [(b.conv.in_channels, b.conv.out_channels) for b in hourglass.decoder.up_blocks.children()]
    assert up == [(12, 12), (12, 8), (8, 4)]
    capped = Hourglass(width=16, in_channels=3, max_width=8, num_blocks=1, skips=False)
    assert capped(torch.rand(1, 3, 4, 4)).shape[1] == capped.out_channels == 8


@pytest.mark.parametrize("skips", [False, True])
def test_what_bypasses_the_deepest_map(skips):
    torch.manual_seed(0)
    hourglass = Hourglass(4, in_channels=3, max_width=8, num_blocks=2, skips=skips).eval()
    maps = hourglass.encoder(torch.rand(1, 3, 8, 8))
    others = hourglass.encoder(torch.rand(1, 3, 8, 8))
    swapped = hourglass.decoder([*others[:-1], maps[-1]])[-1]
    assert torch.equal(swapped, hourglass.decoder(maps)[-1]) == (not skips)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (8, 4)])
def test_upsampling_convolution_is_nearest_and_convolution(height, width, monkeypatch):
    """Values, and gradients of input, weight and bias, in float64."""
    layer = UpConv2d(3, 4).double()
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 4, 2 * height, 2 * width, dtype=torch.float64)

    def gradients(output):
        inputs = (x, layer.weight, layer.bias)
        return torch.autograd.grad(output, inputs, cotangent, retain_graph=True)

    larger = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = F.conv2d(larger, layer.weight, layer.bias, padding=1)
    for least_area in (0, math.inf):  # as one transposed convolution, and as defined
        monkeypatch.setattr(blocks, "MIN_FUSED_AREA", least_area)
        output = layer(x)
        assert_close(output, expected, atol=1e-12, rtol=0)
        for found, gradient in zip(gradients(output), gradients(expected), strict=True):
            assert_close(found, gradient, atol=1e-12, rtol=0)


def test_upsampling_kernel_by_hand():
    """Of one row and one column of weights: neighbours are summed where they see one pixel."""
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1] = torch.tensor([1.0, 2.0, 4.0])  # the middle row
    kernel = blocks.upsampling_kernel(weight)
    assert kernel[0, 0].tolist() == [
        [0, 0, 0, 0],
        [4, 6, 3, 1],
        [4, 6, 3, 1],
        [0, 0, 0, 0],
    ]


@pytest.mark.parametrize("least_area", [0, math.inf])
def test_upsampling_convolution_keeps_half_precision(least_area, monkeypatch):
    monkeypatch.setattr(blocks, "MIN_FUSED_AREA", least_area)
    x = torch.rand(1, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = UpConv2d(3, 8)(x)
    assert output.dtype == torch.bfloat16
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("skips", [True, False])
def test_hourglass_returns_the_maps_of_every_level(skips):
    """TPSMM reads its occlusion maps from the decoder's levels."""
    hourglass = Hourglass(4, 3, 16, 3, skips=skips, norm="instance").eval()
    image = torch.rand(2, 3, 16, 16)
    maps = hourglass.maps(image)
    assert [map_.shape[-1] for map_ in maps] == [2, 4, 8, 16]
    assert [map_.shape[1] for map_ in maps] == hourglass.decoder.out_channels
    assert torch.equal(maps[-1], hourglass(image))


def test_instance_norm_keeps_no_statistics():
    layers = [DownBlock(3, 4, "instance"), UpBlock(3, 4, "instance"), SameBlock(3, 4, "instance")]
    for block in [*layers, ResBlock(3, "instance")]:
        assert not list(block.buffers())
        image = torch.rand(1, 3, 8, 8)
        alone, beside = block(image), block(torch.cat((image, torch.rand(1, 3, 8, 8))))
        torch.testing.assert_close(alone, beside[:1])
