"""Candidate motions by hand, the network's input and output."""

import math

import pytest
import torch
from torch.testing import assert_close

from modules.dense_motion import DenseMotionNetwork, sparse_motions
from modules.geometry import coordinate_grid, gaussian_heatmaps, warp
from modules.keypoint_detector import Keypoints

EYE = torch.eye(2)


def keypoints(*values, jacobian=EYE):
    """One frame's keypoints, all with the same Jacobian (or None)."""
    value = torch.tensor([values])
    if jacobian is None:
        return Keypoints(value, None)
    return Keypoints(value, jacobian.expand(1, len(values), 2, 2))


def network(occlusion=True, num_keypoints=2, scale=0.5, heatmap_start=0.0):
    torch.manual_seed(0)
    return DenseMotionNetwork(
        width=4,
        max_width=8,
        num_blocks=2,
        scale=scale,
        num_keypoints=num_keypoints,
        heatmap_variance=0.01,
        occlusion=occlusion,
        heatmap_start=heatmap_start,
    )


def test_equal_keypoints_give_the_identity():
    points = keypoints((0.3, -0.2), (-0.5, 0.9), jacobian=torch.tensor([[1.2, 0.3], [-0.1, 0.8]]))
    motions = sparse_motions(points, points, 5, 7)
    identity = coordinate_grid(5, 7, motions)
    assert_close(motions, identity.expand(1, 3, 5, 7, 2))


@pytest.mark.parametrize("jacobian", [EYE, None])
def test_translation_with_the_background_first(jacobian):
    source, driving = (
        keypoints((0.5, 0.25), jacobian=jacobian),
        keypoints((0.0, 0.0), jacobian=None),
    )
    background, moved = sparse_motions(source, driving, 3, 3)[0]
    identity = coordinate_grid(3, 3, moved)
    assert_close(background, identity)
    # The driving keypoint at the centre comes from the source's keypoint.
    assert_close(moved, identity + torch.tensor([0.5, 0.25]))


def test_rotation_and_scale_of_the_jacobians():
    quarter_turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    source = keypoints((0.1, 0.2), jacobian=quarter_turn)
    driving = keypoints((0.5, 0.5), jacobian=2 * EYE)
    motion = sparse_motions(source, driving, 3, 3)[0, 1]
    # z = (1, -1): z - p_D = (0.5, -1.5); halved (0.25, -0.75); turned (0.75, 0.25); plus p_S.
    assert_close(motion[0, 2], torch.tensor([0.85, 0.45]))


def test_input_is_heatmap_then_warped_source_candidate_by_candidate():
    dense = network()
    seen = []
    dense.hourglass.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 32, 16)
    source, driving = keypoints((0.3, -0.2), (-0.5, 0.5)), keypoints((0.1, 0.1), (-0.4, 0.2))
    dense(image, source, driving)
    small = dense.down(image)
    motions = sparse_motions(source, driving, 16, 8)
    heatmaps = gaussian_heatmaps(driving.value, 16, 8, 0.01) - gaussian_heatmaps(
        source.value, 16, 8, 0.01
    )
    candidates = seen[0].unflatten(1, (3, 4))
    assert (candidates[:, 0, 0] == 0).all()  # the background has no heatmap
    assert_close(candidates[:, 0, 1:], small, atol=1e-5, rtol=0)  # and does not move
    assert_close(candidates[:, 1:, 0], heatmaps)
    for k in (1, 2):
        assert_close(candidates[:, k, 1:], warp(small, motions[:, k]))


@torch.no_grad()
def test_deformation_is_the_weighted_sum_of_the_motions():
    dense = network()
    source, driving = keypoints((0.3, -0.2), (-0.5, 0.5)), keypoints((0.1, 0.1), (-0.4, 0.2))
    motion = dense(torch.rand(1, 3, 32, 16), source, driving)
    assert motion.deformation.shape == (1, 16, 8, 2)
    assert motion.motion_weights.shape == (1, 3, 16, 8)
    assert motion.occlusion_map.shape == (1, 1, 16, 8)
    assert_close(motion.motion_weights.sum(1), torch.ones(1, 16, 8))
    assert 0 <= motion.occlusion_map.min() <= motion.occlusion_map.max() <= 1
    motions = sparse_motions(source, driving, 16, 8)
    expected = sum(motion.motion_weights[:, k, ..., None] * motions[:, k] for k in range(3))
    assert_close(motion.deformation, expected)


@torch.no_grad()
def test_uniform_weights_and_zero_logit_by_hand():
    dense = network(num_keypoints=1)
    for layer in (dense.mask, dense.occlusion):
        layer.weight.zero_()
        layer.bias.zero_()
    dense.occlusion.bias.fill_(math.log(3))
    motion = dense(torch.rand(1, 3, 16, 16), keypoints((0.4, 0.0)), keypoints((0.0, 0.0)))
    identity = coordinate_grid(8, 8, motion.deformation)
    assert_close(motion.deformation[0], identity + torch.tensor([0.2, 0.0]))  # half of the motion
    assert_close(motion.occlusion_map, torch.full((1, 1, 8, 8), 0.75))


def test_without_occlusion():
    dense = network(occlusion=False)
    points = keypoints((0.3, -0.2), (-0.5, 0.5))
    assert dense(torch.rand(1, 3, 16, 16), points, points).occlusion_map is None
    assert not any(name.startswith("occlusion") for name in dense.state_dict())


def test_motion_stays_float32_under_autocast():
    points = keypoints((0.3, -0.2), (-0.5, 0.5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        motion = network()(torch.rand(1, 3, 16, 16), points, points)
    assert {tensor.dtype for tensor in motion} == {torch.float32}
    # Equal keypoints: whatever the weights, nothing moves.
    identity = coordinate_grid(8, 8, motion.deformation)
    assert_close(motion.deformation[0], identity, atol=1e-6, rtol=0)


@torch.no_grad()
def test_weights_that_start_at_the_heatmaps():
    """Around a keypoint its own motion, between them and far away none."""
    far = keypoints((0.9, 0.9), (0.9, -0.9))  # of the source: heatmaps are differences
    driving = keypoints((-0.5, -0.5), (0.25, 0.25))
    weights = network(heatmap_start=8.0).eval()(torch.rand(1, 3, 64, 64), far, driving)[2][0]
    assert weights.shape == (3, 32, 32)
    grid = coordinate_grid(32, 32, torch.empty(0)).view(32, 32, 2)
    distances = (grid - driving.value[0, :, None, None]).norm(dim=-1)
    for k in (0, 1):
        assert weights[k + 1][distances[k] < 0.07].min() > 0.9
    assert weights[0][(distances > 0.25).all(dim=0)].min() > 0.75
