"""Relative motion and relative covariances by hand."""

import math

import torch
from torch.testing import assert_close

from modules.keypoint_detector import Keypoints
from modules.monkey_net.heatmaps import covariance_heatmaps
from modules.monkey_net.keypoint_transfer import (
    clipped_keypoints,
    relative_covariances,
    transferred_keypoints,
)


def keypoint(value, covariance):
    return Keypoints(torch.tensor([[value]]), None, torch.tensor([[covariance]]))


SOURCE = keypoint((0.5, 0.5), [[1.0, 0.5], [0.5, 1.0]])
FIRST = keypoint((0.1, 0.2), [[2.0, 0.0], [0.0, 3.0]])
DRIVING = keypoint((0.2, 0.0), [[4.0, 0.0], [0.0, 9.0]])


def test_translation_with_the_covariance_of_the_driving_frame():
    moved = transferred_keypoints(SOURCE, DRIVING, FIRST, scale=2.0)
    assert_close(moved.value, torch.tensor([[[0.7, 0.1]]]))
    assert torch.equal(moved.covariance, DRIVING.covariance)
    assert moved.jacobian is None


def test_relative_covariance_by_hand():
    moved = transferred_keypoints(SOURCE, DRIVING, FIRST, relative_covariance=True)
    assert_close(moved.value, torch.tensor([[[0.6, 0.3]]]))
    # diag(2, 3) times the source's is [[2, 1], [1.5, 3]], and half of it and its transpose.
    assert_close(moved.covariance, torch.tensor([[[[2.0, 1.25], [1.25, 3.0]]]]))


def test_driving_frames_in_a_batch():
    both = Keypoints(
        torch.cat((DRIVING.value, FIRST.value)),
        None,
        torch.cat((DRIVING.covariance, FIRST.covariance)),
    )
    moved = transferred_keypoints(SOURCE, both, FIRST, relative_covariance=True)
    assert_close(moved.value, torch.tensor([[[0.6, 0.3]], [[0.5, 0.5]]]))
    assert_close(moved.covariance[1:], SOURCE.covariance)  # the still frame gives the source's


def test_negative_eigenvalues():
    eye = torch.eye(2)
    driving = torch.diag(torch.tensor([1.0, 9.0]))
    source = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    # A = [[1, .9], [8.1, 9]], made symmetric [[1, 4.5], [4.5, 9]]: 5 +- sqrt(16 + 4.5^2).
    largest = 5 + math.sqrt(16 + 4.5**2)
    across = torch.tensor([4.5, largest - 1]) / math.hypot(4.5, largest - 1)
    expected = largest * across.outer(across)
    found = relative_covariances(source, driving, eye)
    assert_close(found, expected, atol=1e-4, rtol=0)
    smallest = torch.linalg.eigvalsh(
        relative_covariances(*(x.double() for x in (source, driving, eye)))
    )[0]
    assert_close(smallest, torch.tensor(largest * 1e-6, dtype=torch.float64), rtol=1e-3, atol=0)


def test_eigenvalues_of_zero_and_below():
    eye = torch.eye(2, dtype=torch.float64)
    singular = torch.diag(torch.tensor([0.25, 0.0], dtype=torch.float64))
    found = relative_covariances(eye, singular, eye)
    assert_close(found, torch.diag(torch.tensor([0.25, 1e-6], dtype=torch.float64)))
    assert_close(relative_covariances(eye, -eye, eye), 1e-6 * eye)


def test_flat_covariances_have_finite_heatmaps():
    """Large and slanted: 1e-6 would be lost in the rounding of its elements."""
    turn = torch.linspace(0.1, 3.0, 40)
    along = torch.stack((turn.cos(), turn.sin()), dim=-1)
    flat = 60 * along.unsqueeze(-1) * along.unsqueeze(-2)
    across = torch.stack((-turn.sin(), turn.cos()), dim=-1)
    flat = flat - 0.1 * across.unsqueeze(-1) * across.unsqueeze(-2)
    eye = torch.eye(2)
    covariance = relative_covariances(eye, flat, eye)
    points = Keypoints(torch.zeros(1, 40, 2), None, covariance[None])
    heatmaps = covariance_heatmaps(points, 64, 64, 1)
    assert heatmaps.max() < 1.2


def test_clipped_to_the_frame():
    moved = Keypoints(torch.tensor([[[1.5, -0.3], [-2.0, 1.0]]]), None, torch.rand(1, 2, 2, 2))
    clipped = clipped_keypoints(moved)
    assert_close(clipped.value, torch.tensor([[[1.0, -0.3], [-1.0, 1.0]]]))
    assert clipped.covariance is moved.covariance


def test_covariances_stay_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = transferred_keypoints(SOURCE, DRIVING, FIRST, relative_covariance=True)
    assert_close(moved.covariance, torch.tensor([[[[2.0, 1.25], [1.25, 3.0]]]]))
