"""The mask refinement: its inputs, its temperature, precision."""

import pytest
import torch
from torch.testing import assert_close

from modules.mask_refinement import MaskRefinement


def refinement(temperature=0.1):
    torch.manual_seed(0)
    return MaskRefinement(width=4, max_width=8, num_blocks=2, temperature=temperature).eval()


def frames_and_masks(height=16, width=16):
    return (
        torch.rand(2, 3, height, width),
        torch.rand(2, 1, height, width),
        torch.rand(2, 1, height, width),
    )


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 20)])
def test_mask_keeps_its_size_without_a_border(height, width):
    refined = refinement()(*frames_and_masks(height, width))
    assert refined.shape == (2, 1, height, width)
    assert 0 < refined.min() < refined.max() < 1


@torch.no_grad()
def test_temperature_divides_the_logits():
    inputs = frames_and_masks()
    warm, cold = refinement(0.2)(*inputs), refinement(0.1)(*inputs)
    assert_close(cold.logit(), 2 * warm.logit(), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_order_of_the_inputs():
    network, inputs = refinement(), frames_and_masks()
    seen = []
    network.mask_fix_net.register_forward_pre_hook(lambda module, maps: seen.extend(maps))
    plain = network(*inputs)
    assert torch.equal(seen[0], torch.cat(inputs, dim=1))
    for i in range(3):
        changed = list(inputs)
        changed[i] = changed[i].flip(-1)
        assert not torch.allclose(network(*changed), plain, atol=1e-3)


@torch.no_grad()
def test_no_skip_connection():
    network = refinement()
    deepest = network.mask_fix_net.encoder.down_blocks[-1]
    deepest.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    first, second = (network(*frames_and_masks()) for _ in range(2))
    assert torch.equal(first, second)


@torch.no_grad()
def test_float32_under_autocast():
    network, inputs = refinement(), frames_and_masks()
    plain = network(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined = network(*inputs)
    assert refined.dtype == torch.float32
    assert_close(refined, plain, atol=0.05, rtol=0)
