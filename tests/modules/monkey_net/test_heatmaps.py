"""Heatmaps of covariances by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from modules.heatmaps import HeatmapStyle, candidate_heatmaps, heatmap_difference
from modules.keypoint_detector import Keypoints
from modules.monkey_net.heatmaps import covariance_heatmaps


def keypoint(value, covariance):
    return Keypoints(torch.tensor([[value]]), None, torch.tensor([[covariance]]))


# Its inverse is [[1, -1], [-1, 2]].
SLANTED = keypoint((0.0, 0.0), [[2.0, 1.0], [1.0, 1.0]])
# -(z - p)^T V^-1 (z - p) / 2 at x = -1, 0, 1, row by row: (1, 1) has 1 - 2 + 2 = 1, (1, -1) has 5.
EXPONENTS = torch.tensor([[-0.5, -1.0, -2.5], [-0.5, 0.0, -0.5], [-2.5, -1.0, -0.5]])


def test_norm_by_a_number():
    heatmap = covariance_heatmaps(SLANTED, 3, 3, 100)
    assert heatmap.shape == (1, 1, 3, 3)
    assert_close(heatmap[0, 0], EXPONENTS.exp() / 100)


def test_norm_by_the_sum():
    heatmap = covariance_heatmaps(SLANTED, 3, 3, "sum")
    total = 1 + 4 * math.exp(-0.5) + 2 * math.exp(-1) + 2 * math.exp(-2.5)
    assert_close(heatmap[0, 0], EXPONENTS.exp() / total)


def test_x_comes_first():
    heatmap = covariance_heatmaps(keypoint((1.0, 0.0), [[2.0, 0.0], [0.0, 0.5]]), 3, 5, 1)[0, 0]
    assert heatmap[1, 4].item() == 1
    assert heatmap[1, 0].item() == pytest.approx(math.exp(-(2**2) / 2 / 2))
    assert heatmap[0, 4].item() == pytest.approx(math.exp(-(1**2) / 0.5 / 2))


def test_far_outside_with_the_smallest_covariance():
    """No pixel is near: nothing by a number, and by the sum still a heatmap."""
    far = keypoint((3.0, 2.0), [[1e-6, 0.0], [0.0, 1e-6]])
    assert covariance_heatmaps(far, 8, 8, 100).sum() == 0
    by_sum = covariance_heatmaps(far, 8, 8, "sum")[0, 0]
    assert by_sum.sum().item() == pytest.approx(1)
    assert by_sum[-1, -1].item() == pytest.approx(1)  # the nearest corner


def test_difference_is_driving_minus_source():
    source = keypoint((1.0, 0.0), [[0.5, 0.0], [0.0, 0.5]])
    difference = heatmap_difference(source, SLANTED, 3, 3, HeatmapStyle(norm=100))
    expected = covariance_heatmaps(SLANTED, 3, 3, 100) - covariance_heatmaps(source, 3, 3, 100)
    assert torch.equal(difference, expected)
    assert difference[0, 0, 1, 1] > 0 > difference[0, 0, 0, 2]
    padded = candidate_heatmaps(source, SLANTED, 3, 3, HeatmapStyle(norm=100))
    assert torch.equal(padded, torch.cat((torch.zeros(1, 1, 3, 3), expected), dim=1))
