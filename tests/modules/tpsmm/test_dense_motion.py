"""Candidates, dropped plates and sizes of TPSMM's dense motion."""

import math

import pytest
import torch
from torch.testing import assert_close

from modules.geometry import coordinate_grid
from modules.keypoint_detector import Keypoints
from modules.tpsmm.dense_motion import (
    ThinPlateMotionNetwork,
    candidate_motions,
    kept_plates,
    plate_dropout,
    weights_of_kept_plates,
)
from modules.tpsmm.thin_plates import fit_thin_plates


def network(num_plates=2, scale=0.25, num_occlusion_maps=4, num_blocks=2):
    torch.manual_seed(0)
    return ThinPlateMotionNetwork(
        width=4,
        max_width=16,
        num_blocks=num_blocks,
        scale=scale,
        num_plates=num_plates,
        heatmap_variance=0.01,
        num_occlusion_maps=num_occlusion_maps,
    )


def keypoints(batch=1, num_plates=2):
    return Keypoints(torch.rand(batch, 5 * num_plates, 2) * 2 - 1, None)


def test_candidates_are_the_background_and_then_the_plates():
    source, driving = keypoints(2), keypoints(2)
    identity = coordinate_grid(4, 6, source.value)
    still = candidate_motions(source, driving, None, 4, 6)
    assert still.shape == (2, 3, 4, 6, 2)
    assert_close(still[:, 0], identity.expand(2, -1, -1, -1))
    assert_close(still[:, 1:], fit_thin_plates(source, driving).motions(4, 6))
    affine = torch.tensor([[0.0, 2.0, 0.1], [1.0, 0.5, -0.2], [0.0, 0.0, 1.0]])
    moved = candidate_motions(source, driving, torch.stack((affine, torch.eye(3))), 4, 6)
    x, y = identity.unbind(-1)
    assert_close(moved[0, 0], torch.stack((2 * y + 0.1, x + 0.5 * y - 0.2), dim=-1))
    assert_close(moved[1, 0], identity)
    assert_close(moved[:, 1:], still[:, 1:])


@pytest.mark.parametrize(
    ("epoch", "vox", "taichi"),
    [(0, 0.1, 0.0), (5, 0.25, 0.35), (7, 0.3, 0.49), (10, 0.3, 0.7), (34, 0.3, 0.7), (35, 0, 0)],
)
def test_dropout_grows_and_ends(epoch, vox, taichi):
    schedule = {"ramp_epochs": 10, "end_epoch": 35}
    assert plate_dropout(epoch, start=0.1, maximum=0.3, **schedule) == pytest.approx(vox)
    assert plate_dropout(epoch, start=0.0, maximum=0.7, **schedule) == pytest.approx(taichi)


def test_as_many_plates_are_kept_as_the_probability_says():
    uniform = torch.tensor([[0.0, 0.69, 0.71, 0.999]])
    assert kept_plates(uniform, 0.3).tolist() == [[True, True, False, False]]
    assert kept_plates(uniform, 0.0).all()
    assert not kept_plates(uniform, 1.0).any()


def test_weights_of_kept_plates_by_hand():
    logits = torch.tensor([0.0, math.log(3), math.log(2)]).view(1, 3, 1, 1).expand(2, -1, -1, -1)
    weights = weights_of_kept_plates(logits, torch.tensor([[True, False], [False, False]]))
    assert_close(weights[0].flatten(), torch.tensor([1 / 4, 3 / 4, 0.0]), atol=1e-6, rtol=0)
    assert_close(weights[1].flatten(), torch.tensor([1.0, 0.0, 0.0]), atol=5e-6, rtol=0)
    plain = weights_of_kept_plates(logits, torch.ones(2, 2, dtype=torch.bool))
    assert_close(plain, logits.softmax(dim=1), atol=2e-6, rtol=0)


@torch.no_grad()
def test_a_dropped_plate_moves_nothing_and_keeps_its_motion_weight():
    dense, image = network(), torch.rand(1, 3, 64, 64)
    source, driving = keypoints(), keypoints()
    all_kept = dense(image, source, driving)
    dropped = dense(image, source, driving, kept=torch.tensor([[False, False]]))
    assert_close(dropped.motion_weights, all_kept.motion_weights)
    identity = coordinate_grid(16, 16, image)
    assert_close(dropped.deformation[0], identity, atol=1e-4, rtol=0)  # 1e-6 in the divisor
    assert (all_kept.deformation[0] - identity).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize(("scale", "blocks", "maps"), [(0.25, 2, 4), (0.5, 3, 3), (1.0, 2, 3)])
def test_sizes(scale, blocks, maps):
    motion = network(scale=scale, num_occlusion_maps=maps, num_blocks=blocks)(
        torch.rand(2, 3, 64, 32), keypoints(2), keypoints(2), torch.eye(3).expand(2, -1, -1)
    )
    height, width = round(64 * scale), round(32 * scale)
    assert motion.deformation.shape == (2, height, width, 2)
    assert motion.motion_weights.shape == (2, 3, height, width)
    assert_close(motion.motion_weights.sum(1), torch.ones(2, height, width))
    sizes = [(2, 1, 64 // 2**i, 32 // 2**i) for i in reversed(range(maps))]
    assert [tuple(map_.shape) for map_ in motion.occlusion_maps] == sizes
    assert motion.occlusion_map.shape == (2, 1, height, width)
    assert all(0 <= map_.min() <= map_.max() <= 1 for map_ in motion.occlusion_maps)


@torch.no_grad()
def test_motion_stays_float32_under_autocast():
    dense, image = network(), torch.rand(1, 3, 64, 64)
    source, driving = keypoints(), keypoints()
    plain = dense(image, source, driving)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        motion = dense(image, source, driving, torch.eye(3)[None].bfloat16())
    tensors = (motion.deformation, motion.motion_weights, *motion.occlusion_maps)
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert_close(motion.motion_weights, plain.motion_weights, atol=0.05, rtol=0)
