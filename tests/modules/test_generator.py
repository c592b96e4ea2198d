"""The generator: sizes, the order of warp and occlusion, encode once."""

import pytest
import torch
from torch.testing import assert_close

from modules.dense_motion import DenseMotion
from modules.generator import Generator
from modules.geometry import coordinate_grid


def generator(num_down_blocks=2, skip=False):
    torch.manual_seed(0)
    return Generator(4, 8, num_down_blocks, num_res_blocks=2, skip=skip).eval()


def still(height, width, occlusion=None):
    """No motion at h x w, with the same occlusion everywhere."""
    grid = coordinate_grid(height, width, torch.empty(0)).expand(1, -1, -1, -1)
    occlusion_map = None if occlusion is None else torch.full((1, 1, height, width), occlusion)
    return DenseMotion(grid, occlusion_map, torch.ones(1, 1, height, width))


@torch.no_grad()
@pytest.mark.parametrize(("height", "width", "blocks"), [(16, 16, 2), (16, 24, 2), (8, 6, 1)])
def test_sizes(height, width, blocks):
    network = generator(blocks)
    image = torch.rand(1, 3, height, width)
    assert network.encode(image).shape == (1, 8, height // 2**blocks, width // 2**blocks)
    prediction = network(image, still(height // 2, width // 2)).prediction
    assert prediction.shape == (1, 3, height, width)
    assert 0 < prediction.min() <= prediction.max() < 1


@torch.no_grad()
def test_bottleneck_sees_warped_features_times_occlusion():
    network = generator(num_down_blocks=1)
    seen = []
    network.bottleneck.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 16, 16)
    features = network.encode(image)
    motion = still(8, 8, occlusion=0.25)
    network(image, motion)
    assert_close(seen[0], 0.25 * features, atol=1e-5, rtol=1e-5)
    one_pixel = motion.deformation + torch.tensor([2 / 7, 0.0])
    network(image, motion._replace(deformation=one_pixel, occlusion_map=None))
    assert_close(seen[1][..., :-1], features[..., 1:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_occluded_everywhere_forgets_the_source():
    network = generator()
    blind = still(4, 4, occlusion=0.0)
    first, second = (network(torch.rand(1, 3, 16, 16), blind).prediction for _ in range(2))
    assert torch.equal(first, second)
    seeing = still(4, 4, occlusion=1.0)
    first, second = (network(torch.rand(1, 3, 16, 16), seeing).prediction for _ in range(2))
    assert not torch.equal(first, second)


@torch.no_grad()
@pytest.mark.parametrize("skip", [False, True])
def test_encode_once_then_generate_equals_forward(skip):
    network, image = generator(skip=skip), torch.rand(1, 3, 16, 16)
    motion = still(8, 8, occlusion=0.5)
    generated = network.generate(image, network.encode(image), motion)
    assert torch.equal(generated.prediction, network(image, motion).prediction)
    assert (generated.warped is not None) == skip


@torch.no_grad()
def test_skip_shows_the_warped_source_where_it_is_visible():
    network, image = generator(num_down_blocks=1, skip=True), torch.rand(1, 3, 16, 16)
    motion = still(16, 16, occlusion=1.0)
    one_pixel = motion.deformation + torch.tensor([2 / 15, 0.0])
    moved = network(image, motion._replace(deformation=one_pixel)).prediction
    assert_close(moved[..., :-1], image[..., 1:], atol=1e-5, rtol=1e-5)
    hidden = still(16, 16, occlusion=0.0)
    decoded = network.decode(network.encode(image), hidden)
    assert torch.equal(network(image, hidden).prediction, decoded)
    quarter = still(16, 16, occlusion=0.25)
    decoded = network.decode(network.encode(image), quarter)
    expected = 0.25 * image + 0.75 * decoded
    assert_close(network(image, quarter).prediction, expected, atol=1e-5, rtol=1e-5)


def test_channels_last_and_autocast():
    network = generator().to(memory_format=torch.channels_last)
    image = torch.rand(2, 3, 16, 16).to(memory_format=torch.channels_last)
    seen = []
    network.bottleneck.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    motion = still(8, 8, occlusion=0.5)
    motion = DenseMotion(*(tensor.expand(2, *tensor.shape[1:]) for tensor in motion))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = network(image, motion).prediction
    assert prediction.dtype == torch.float32
    assert seen[0].dtype == torch.bfloat16  # the maps do not lift the features
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
