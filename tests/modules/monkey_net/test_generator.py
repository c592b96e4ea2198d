"""The generator: what the decoder sees of every map, occlusion, encode once."""

import pytest
import torch
from torch.testing import assert_close

from modules.dense_motion import DenseMotion
from modules.geometry import coordinate_grid, resize, resize_grid, warp
from modules.heatmaps import HeatmapStyle, heatmap_difference
from modules.keypoint_detector import Keypoints
from modules.monkey_net.generator import MonkeyNetGenerator

SOURCE = Keypoints(
    torch.tensor([[[0.3, -0.2], [-0.5, 0.5]]]), None, torch.eye(2).expand(1, 2, 2, 2)
)
DRIVING = SOURCE._replace(value=torch.tensor([[[0.0, 0.0], [-0.5, 0.1]]]))


def generator(interpolation="bilinear", num_blocks=3):
    torch.manual_seed(0)
    return MonkeyNetGenerator(
        width=4,
        max_width=16,
        num_blocks=num_blocks,
        num_refinement_blocks=2,
        num_keypoints=2,
        heatmap_scale=0.5,
        heatmap_norm=100,
        interpolation=interpolation,
    ).eval()


def random_motion(height, width, occlusion=None):
    grid = coordinate_grid(height, width, torch.empty(0)).expand(1, -1, -1, -1)
    occlusion_map = None if occlusion is None else torch.full((1, 1, height, width), occlusion)
    return DenseMotion(
        grid + 0.2 * torch.randn(1, height, width, 2),
        occlusion_map,
        torch.ones(1, 3, height, width),
    )


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24)])
def test_sizes(height, width):
    network = generator()
    image = torch.rand(1, 3, height, width)
    shapes = [tuple(features.shape[1:]) for features in network.encode(image)]
    half = [(c, height // s, width // s) for c, s in ((3, 1), (8, 2), (16, 4), (16, 8))]
    assert shapes == half
    prediction = network(image, random_motion(height // 2, width // 2), SOURCE, DRIVING)
    assert prediction.shape == (1, 3, height, width)
    assert 0 < prediction.min() <= prediction.max() < 1
    # Twice the channels of a level, except for the deepest, and the heatmaps.
    assert [block.conv.in_channels for block in network.up_blocks] == [
        16 + 2,
        2 * 16 + 2,
        2 * 8 + 2,
    ]
    assert network.final.in_channels == 4 + 3 + 2


@torch.no_grad()
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("occlusion", [None, 0.25])
def test_decoder_sees_warped_maps_and_then_heatmaps(interpolation, occlusion):
    network = generator(interpolation)
    seen = []
    for module in (*network.up_blocks, network.refinement):
        module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image, motion = torch.rand(1, 3, 16, 16), random_motion(8, 8, occlusion)
    network(image, motion, SOURCE, DRIVING)
    heatmaps = heatmap_difference(SOURCE, DRIVING, 8, 8, HeatmapStyle(norm=100))
    for features, shown in zip(reversed(network.encode(image)), seen, strict=True):
        size = features.shape[-2:]
        warped = warp(features, resize_grid(motion.deformation, size, interpolation))
        warped = warped if occlusion is None else occlusion * warped
        expected = torch.cat((warped, resize(heatmaps, size, interpolation)), dim=1)
        assert_close(shown[:, -expected.shape[1] :], expected)
    assert seen[0].shape[1] == 16 + 2  # nothing stands before the deepest map


@torch.no_grad()
def test_occluded_everywhere_forgets_the_source_but_not_the_keypoints():
    network = generator()
    blind = random_motion(4, 4, occlusion=0.0)
    image = torch.rand(1, 3, 16, 16)
    first = network(image, blind, SOURCE, DRIVING)
    assert torch.equal(first, network(torch.rand(1, 3, 16, 16), blind, SOURCE, DRIVING))
    assert not torch.equal(first, network(image, blind, SOURCE, SOURCE))
    seeing = random_motion(4, 4, occlusion=1.0)
    first, second = (network(torch.rand(1, 3, 16, 16), seeing, SOURCE, DRIVING) for _ in range(2))
    assert not torch.equal(first, second)


@torch.no_grad()
def test_encode_once_then_decode_equals_forward():
    network, image, motion = generator(), torch.rand(1, 3, 16, 16), random_motion(8, 8)
    decoded = network.decode(network.encode(image), motion, SOURCE, DRIVING)
    assert torch.equal(decoded, network(image, motion, SOURCE, DRIVING))


def test_warped_source_ignores_occlusion():
    network, image = generator(), torch.rand(1, 3, 16, 16)
    motion = random_motion(8, 8, occlusion=0.5)
    expected = warp(image, resize_grid(motion.deformation, (16, 16)))
    assert torch.equal(network.warp(image, motion), expected)


def test_every_parameter_gets_a_gradient():
    network = generator().train()
    motion = random_motion(8, 8, occlusion=0.5)
    for tensor in motion[:2]:
        tensor.requires_grad_()
    driving = DRIVING._replace(value=DRIVING.value.clone().requires_grad_())
    image = torch.rand(1, 3, 16, 16)
    network(image, motion, SOURCE, driving).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    for tensor in (motion.deformation, motion.occlusion_map, driving.value):
        assert tensor.grad.any()


def test_channels_last_and_autocast():
    network = generator().to(memory_format=torch.channels_last)
    image = torch.rand(2, 3, 16, 16).to(memory_format=torch.channels_last)
    seen = []
    for module in (*network.up_blocks, network.refinement):
        module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    motion = random_motion(8, 8, occlusion=0.5)
    motion = DenseMotion(*(tensor.expand(2, *tensor.shape[1:]) for tensor in motion))
    points = [
        Keypoints(k.value.expand(2, -1, -1), None, k.covariance.expand(2, -1, -1, -1))
        for k in (SOURCE, DRIVING)
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = network(image, motion, *points)
    assert prediction.dtype == torch.float32
    for features in seen:  # neither the maps, the heatmaps nor the image lift the features
        assert features.dtype == torch.bfloat16
        assert features.is_contiguous(memory_format=torch.channels_last)
