"""The thin-plate transform by hand and against finite differences."""

import math

import pytest
import torch
from torch.testing import assert_close

from common.batch_random import BatchRandom
from modules.geometry import coordinate_grid
from modules.thin_plate import ThinPlateTransform, control_grid, random_thin_plate


def identity(batch=1, num_points=9):
    weights = torch.zeros(batch, num_points)
    return ThinPlateTransform(
        torch.eye(2, 3).expand(batch, -1, -1), weights, control_grid(3, weights)
    )


def drawn(batch=2, seed=0, affine_std=0.05, thin_plate_std=0.05, distance="manhattan"):
    random = BatchRandom(torch.Generator().manual_seed(seed))
    return random_thin_plate(batch, affine_std, thin_plate_std, 5, random, distance)


def test_control_points_row_by_row():
    points = control_grid(3, torch.empty(0))
    assert points[:4].tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 0]]


def test_identity_leaves_points_and_frame_alone():
    points = torch.rand(1, 6, 2) * 2 - 1
    assert_close(identity().points(points), points)
    assert_close(identity().jacobian(points), torch.eye(2).expand(1, 6, 2, 2))
    frame = torch.rand(1, 3, 6, 10)
    assert_close(identity().frame(frame), frame, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("distance", "bending"),
    [
        ("manhattan", 1.2**2 * math.log(1.2 + 1e-6)),  # d = 0.3 + 0.9
        ("euclidean", 0.9 * math.log(0.9 + 1e-9)),  # r = 0.09 + 0.81
    ],
)
def test_one_point_by_hand(distance, bending):
    affine = torch.tensor([[[1.0, 0.5, 0.1], [0.0, 2.0, -0.2]]])
    centre = torch.tensor([[0.5, -0.5]])
    transform = ThinPlateTransform(affine, torch.tensor([[0.3]]), centre, distance)
    # z = (0.2, 0.4), and one scalar is added to both coordinates.
    added = 0.3 * bending
    expected = torch.tensor([[[0.2 + 0.2 + 0.1 + added, 0.8 - 0.2 + added]]])
    assert_close(transform.points(torch.tensor([[[0.2, 0.4]]])), expected)


@pytest.mark.parametrize("distance", ["manhattan", "euclidean"])
def test_jacobian_equals_finite_differences(distance):
    affine, weights, centres, _ = drawn(distance=distance)
    transform = ThinPlateTransform(affine.double(), weights.double(), centres.double(), distance)
    points = torch.rand(2, 8, 2, dtype=torch.float64) * 2 - 1
    step = 1e-6
    columns = [
        (transform.points(points + offset) - transform.points(points - offset)) / (2 * step)
        for offset in step * torch.eye(2, dtype=torch.float64)
    ]
    assert_close(transform.jacobian(points), torch.stack(columns, -1), atol=1e-6, rtol=1e-6)


def test_frame_is_sampled_at_the_moved_grid():
    # The grid of 5 pixels is shifted to the right by one; the border reflects.
    affine = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])
    transform = ThinPlateTransform(affine, torch.zeros(1, 9), identity().control_points)
    frame = torch.arange(5.0).expand(1, 1, 5, 5)
    assert_close(transform.frame(frame)[0, 0, 0], torch.tensor([1.0, 2, 3, 4, 3]))


@pytest.mark.parametrize("distance", ["manhattan", "euclidean"])
def test_everything_is_finite_at_a_control_point(distance):
    transform = drawn(distance=distance)
    points = transform.control_points.expand(2, -1, -1).clone().requires_grad_()
    moved = transform.points(points)
    assert moved.isfinite().all()
    assert transform.jacobian(points).isfinite().all()
    (gradient,) = torch.autograd.grad(moved.sum(), points)
    assert gradient.isfinite().all()


def test_random_transforms_are_near_the_identity_and_differ_by_sample():
    transform = drawn(batch=400, affine_std=0.05, thin_plate_std=0.005)
    noise = transform.affine - torch.eye(2, 3)
    assert 0.045 < noise.std().item() < 0.055
    assert 0.0045 < transform.weights.std().item() < 0.0055
    assert transform.weights.shape == (400, 25)
    assert not torch.equal(transform.affine[0], transform.affine[1])
    again = drawn(batch=400, affine_std=0.05, thin_plate_std=0.005)
    assert torch.equal(transform.affine, again.affine)


def test_both_distances_draw_the_same_numbers():
    for one, other in zip(drawn()[:3], drawn(distance="euclidean")[:3], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("distance", ["manhattan", "euclidean"])
def test_transform_stays_float32_under_autocast(distance):
    transform = drawn(distance=distance)
    points = coordinate_grid(4, 4, torch.empty(0)).view(1, -1, 2).expand(2, -1, -1)
    plain = transform.points(points), transform.jacobian(points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = transform.points(points), transform.jacobian(points)
    assert torch.equal(plain[0], inside[0])
    assert torch.equal(plain[1], inside[1])
