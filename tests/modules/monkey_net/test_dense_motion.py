"""The network's input, what it starts from, and its output by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from modules.dense_motion import sparse_motions
from modules.geometry import coordinate_grid, warp
from modules.keypoint_detector import Keypoints
from modules.monkey_net.dense_motion import GroupBlock, MonkeyNetDenseMotion
from modules.monkey_net.heatmaps import covariance_heatmaps

ROUND = 0.05 * torch.eye(2)


def keypoints(*values):
    return Keypoints(torch.tensor([values]), None, ROUND.expand(1, len(values), 2, 2))


SOURCE, DRIVING = keypoints((0.3, -0.2), (-0.5, 0.5)), keypoints((0.1, 0.1), (-0.4, 0.2))


def network(scale=0.5, norm=100, use_difference=False, occlusion=False, trained=True):
    """With random weights in the last layers, which start at 0, if it is `trained`."""
    torch.manual_seed(0)
    dense = MonkeyNetDenseMotion(
        width=4,
        max_width=8,
        num_blocks=2,
        scale=scale,
        num_keypoints=2,
        heatmap_norm=norm,
        num_group_blocks=2,
        use_difference=use_difference,
        occlusion=occlusion,
    )
    if trained:
        for conv in (dense.weights_and_correction, dense.occlusion):
            if conv is not None:
                torch.nn.init.normal_(conv.weight, std=0.1)
    return dense


@pytest.mark.parametrize("use_difference", [False, True])
@pytest.mark.parametrize("norm", [100, "sum"])
def test_input_candidate_by_candidate(norm, use_difference):
    dense = network(norm=norm, use_difference=use_difference)
    seen = []
    dense.group_blocks.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 32, 16)
    dense(image, SOURCE, DRIVING)
    candidates = seen[0].unflatten(1, (3, -1))
    small = image[..., ::2, ::2]
    heatmaps = covariance_heatmaps(DRIVING, 16, 8, norm) - covariance_heatmaps(SOURCE, 16, 8, norm)
    assert (candidates[:, 0, :-3] == 0).all()  # the background has no heatmap and no shift
    assert_close(candidates[:, 0, -3:], small, atol=1e-5, rtol=0)
    assert_close(candidates[:, 1:, 0], heatmaps)
    for k, shift in enumerate([(0.2, -0.3), (-0.1, 0.3)]):
        moved = coordinate_grid(16, 8, small) + torch.tensor(shift)
        assert_close(candidates[:, k + 1, -3:], warp(small, moved[None]), atol=1e-5, rtol=0)
        if use_difference:
            expected = torch.tensor(shift).view(1, 2, 1, 1).expand(1, 2, 16, 8)
            assert_close(candidates[:, k + 1, 1:3], expected)
    assert candidates.shape[2] == (6 if use_difference else 4)


def test_start_by_hand():
    """Weights e^2 for the background and 1 for each keypoint, no correction, nothing hidden."""
    motion = network(occlusion=True, trained=False)(torch.rand(1, 3, 32, 16), SOURCE, DRIVING)
    total = math.exp(2) + 2
    weights = torch.tensor([math.exp(2), 1, 1]) / total
    assert_close(motion.motion_weights, weights.view(1, 3, 1, 1).expand(1, 3, 16, 8))
    shift = (torch.tensor([0.2, -0.3]) + torch.tensor([-0.1, 0.3])) / total
    assert_close(motion.deformation[0], coordinate_grid(16, 8, shift) + shift)
    visible = 1 / (1 + math.exp(-3))
    assert_close(motion.occlusion_map, torch.full((1, 1, 16, 8), visible))


@torch.no_grad()
def test_deformation_is_the_weighted_sum_of_the_motions_and_a_correction():
    dense = network(scale=1)
    seen = []
    dense.weights_and_correction.register_forward_hook(lambda m, x, y: seen.append(y) and None)
    motion = dense(torch.rand(1, 3, 16, 8), SOURCE, DRIVING)
    assert motion.deformation.shape == (1, 16, 8, 2)
    assert motion.occlusion_map is None
    assert_close(motion.motion_weights, seen[0][:, :3].softmax(dim=1))
    motions = sparse_motions(SOURCE, DRIVING, 16, 8)
    expected = sum(motion.motion_weights[:, k, ..., None] * motions[:, k] for k in range(3))
    assert_close(motion.deformation, expected + seen[0][:, 3:].permute(0, 2, 3, 1))


@torch.no_grad()
def test_groups_see_nothing_of_each_other():
    block = GroupBlock(6, num_groups=3).eval()
    block.norm.bias.fill_(3)  # above the ReLU
    a, b = torch.rand(2, 1, 6, 4, 4)
    b[:, 2:4] = a[:, 2:4]
    assert_close(block(a)[:, 2:4], block(b)[:, 2:4])
    assert not torch.equal(block(a)[:, :2], block(b)[:, :2])


def test_occlusion_head_is_an_addition():
    """The published tensors are the same with it, so that a published file can start it."""
    without, added = network(), network(occlusion=True)
    names = without.state_dict().keys()
    assert added.state_dict().keys() - names == {"occlusion.weight", "occlusion.bias"}
    assert names <= added.state_dict().keys()


def test_every_parameter_gets_a_gradient():
    dense = network(occlusion=True)
    source, driving = (
        Keypoints(k.value.clone(), None, k.covariance.clone()) for k in (SOURCE, DRIVING)
    )
    for tensor in (source.value, source.covariance, driving.value, driving.covariance):
        tensor.requires_grad_()
    motion = dense(torch.rand(1, 3, 32, 16), source, driving)
    (motion.deformation.square().sum() + motion.occlusion_map.square().sum()).backward()
    for name, parameter in dense.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    for tensor in (source.value, source.covariance, driving.value, driving.covariance):
        assert tensor.grad.any()


def test_motion_stays_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        motion = network(occlusion=True)(torch.rand(1, 3, 16, 16), SOURCE, DRIVING)
    assert {tensor.dtype for tensor in motion} == {torch.float32}
