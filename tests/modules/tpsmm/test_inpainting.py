"""TPSMM's generator: sizes, encode once, occlusion by scale, what the warp loss may teach."""

import pytest
import torch
from torch.testing import assert_close

from losses import warp_loss
from modules.geometry import coordinate_grid, resize_grid, warp
from modules.tpsmm.dense_motion import ThinPlateMotion
from modules.tpsmm.inpainting import InpaintingNetwork


def network(num_down_blocks=2):
    torch.manual_seed(0)
    return InpaintingNetwork(width=4, max_width=8, num_down_blocks=num_down_blocks).eval()


def motion(batch=1, size=(16, 16), occlusion=None, num_maps=3, shift=0.3):
    """A random field near the identity; occlusion maps the same everywhere, or random."""
    grid = coordinate_grid(size[0] // 2, size[1] // 2, torch.empty(0)).expand(batch, -1, -1, -1)
    sizes = [(size[0] // 2**i, size[1] // 2**i) for i in reversed(range(num_maps))]
    maps = [
        torch.rand(batch, 1, *s) if occlusion is None else torch.full((batch, 1, *s), occlusion)
        for s in sizes
    ]
    return ThinPlateMotion(grid + shift * torch.randn(grid.shape), maps, torch.empty(0))


@torch.no_grad()
@pytest.mark.parametrize(("height", "width", "blocks"), [(16, 16, 2), (16, 24, 3), (8, 6, 1)])
def test_sizes(height, width, blocks):
    inpainting = network(blocks)
    image = torch.rand(2, 3, height, width)
    features = inpainting.encode(image)
    assert features[0] is image
    channels = [4, 8, 8, 8][: blocks + 1]
    expected = [(2, c, height // 2**i, width // 2**i) for i, c in enumerate(channels)]
    assert [tuple(map_.shape) for map_ in features[1:]] == expected
    prediction = inpainting(image, motion(2, (height, width), num_maps=blocks + 1))
    assert prediction.shape == (2, 3, height, width)
    assert 0 <= prediction.min() <= prediction.max() <= 1


@torch.no_grad()
def test_encode_once_and_decode_a_batch():
    inpainting, image = network(), torch.rand(1, 3, 16, 16)
    features = inpainting.encode(image)
    moved = motion(batch=3)
    together = inpainting.decode([map_.expand(3, -1, -1, -1) for map_ in features], moved)
    for i in range(3):
        alone = ThinPlateMotion(
            moved.deformation[i : i + 1],
            [map_[i : i + 1] for map_ in moved.occlusion_maps],
            moved.motion_weights,
        )
        assert_close(inpainting(image, alone)[0], together[i], atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_is_visible_is_the_warped_source():
    image, moved = torch.rand(1, 3, 16, 16), motion(occlusion=1.0)
    field = resize_grid(moved.deformation, (16, 16), align_corners=True)
    assert_close(network()(image, moved), warp(image, field))


@torch.no_grad()
def test_what_is_occluded_at_every_scale_knows_nothing_of_the_source():
    inpainting, moved = network(), motion(occlusion=0.0)
    predictions = [inpainting(torch.rand(1, 3, 16, 16), moved) for _ in range(2)]
    assert_close(*predictions)
    half = moved.occlusion_maps[-1].clone()
    half[..., :8] = 1  # visible in full size alone: what lies to the right is painted from there
    moved = moved._replace(occlusion_maps=[*moved.occlusion_maps[:-1], half])
    image = torch.rand(1, 3, 16, 16)
    field = resize_grid(moved.deformation, (16, 16), align_corners=True)
    found = inpainting(image, moved)
    assert_close(found[..., :8], warp(image, field)[..., :8])
    assert not torch.equal(found[..., 8:], predictions[0][..., 8:])


@torch.no_grad()
def test_features_for_the_warp_loss_from_the_smallest_on():
    inpainting, image, moved = network(), torch.rand(1, 3, 16, 16), motion(shift=0.0)
    features = inpainting.encode(image)
    # Nothing moves: the source's features are those of the same image as a driving frame.
    warped = inpainting.warped_features(features, moved)
    driving = inpainting.driving_features(image, moved)
    for a, b, map_, occlusion in zip(
        warped, driving, reversed(features[1:]), moved.occlusion_maps, strict=True
    ):
        assert_close(b, map_ * occlusion)
        assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert warp_loss(warped, driving) < 1e-4


def test_the_warp_loss_teaches_the_deformation_alone():
    inpainting, image = network(), torch.rand(1, 3, 16, 16)
    moved = motion()
    for tensor in (moved.deformation, *moved.occlusion_maps):
        tensor.requires_grad_()
    features = inpainting.encode(image)
    loss = warp_loss(
        inpainting.warped_features(features, moved),
        inpainting.driving_features(torch.rand(1, 3, 16, 16), moved),
    )
    loss.backward()
    assert moved.deformation.grad.any()
    assert all(map_.grad is None for map_ in moved.occlusion_maps)
    assert all(parameter.grad is None for parameter in inpainting.parameters())


@torch.no_grad()
def test_prediction_under_autocast_is_float32():
    inpainting, image, moved = network(), torch.rand(1, 3, 16, 16), motion()
    plain = inpainting(image, moved)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = inpainting(image, moved)
    assert found.dtype == torch.float32
    assert_close(found, plain, atol=0.05, rtol=0)
