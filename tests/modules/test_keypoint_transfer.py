"""Relative motion and its scale by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import (
    expand_keypoints,
    first_keypoints,
    hull_area,
    movement_scale,
    relative_keypoints,
)

EYE = torch.eye(2).expand(1, 1, 2, 2)


def points(*values):
    return Keypoints(torch.tensor([values]), None)


def test_relative_keypoints_by_hand():
    source = Keypoints(torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[[1.0, 1.0], [0.0, 1.0]]]]))
    first = Keypoints(torch.tensor([[[0.1, 0.2]]]), 2 * EYE)
    driving = Keypoints(
        torch.tensor([[[0.2, 0.0]], [[0.1, 0.2]]]),
        torch.cat((torch.diag_embed(torch.tensor([[[4.0, 6.0]]])), 2 * EYE)),
    )
    moved = relative_keypoints(source, driving, first, scale=2.0)
    assert_close(moved.value, torch.tensor([[[0.7, 0.1]], [[0.5, 0.5]]]))
    # diag(4, 6) / 2 = diag(2, 3), times the source's Jacobian; the still frame gives the source's.
    assert_close(moved.jacobian[0, 0], torch.tensor([[2.0, 2.0], [0.0, 3.0]]))
    assert_close(moved.jacobian[1], source.jacobian[0])


def test_without_jacobians():
    moved = relative_keypoints(points((0.5, 0.5)), points((0.2, 0.0)), points((0.1, 0.2)))
    assert moved.jacobian is None
    assert_close(moved.value, torch.tensor([[[0.6, 0.3]]]))


def test_scale_is_the_root_of_the_ratio_of_the_areas():
    triangle = points((0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.1, 0.1))  # area 0.18; one inside
    small = points((0.0, 0.0), (0.2, 0.0), (0.0, 0.3), (0.01, 0.01))  # area 0.03
    assert movement_scale(triangle, small) == pytest.approx(math.sqrt(6), rel=1e-5)
    assert movement_scale(small, triangle) == pytest.approx(math.sqrt(1 / 6), rel=1e-5)


@pytest.mark.parametrize(
    "degenerate",
    [
        points((0.0, 0.0), (0.25, 0.25), (0.5, 0.5)),  # on a line
        points((0.1, 0.2), (0.1, 0.2), (0.1, 0.2)),  # on one spot
        points((0.0, 0.0), (1.0, 0.0)),
        points((math.nan, 0.0), (1.0, 0.0), (0.0, 1.0)),
    ],
)
def test_no_hull_means_scale_one(degenerate):
    triangle = points((0.0, 0.0), (0.6, 0.0), (0.0, 0.6))
    assert movement_scale(degenerate, triangle) == 1
    assert movement_scale(triangle, degenerate) == 1


def test_hull_area_by_hand():
    """A 0.6 x 0.3 rectangle with a point inside; its first two points alone have no hull."""
    rectangle = torch.tensor([[0.0, 0.0], [0.6, 0.0], [0.2, 0.1], [0.6, 0.3], [0.0, 0.3]])
    assert hull_area(rectangle) == pytest.approx(0.18, rel=1e-6)
    assert hull_area(rectangle[:2]) == 0


@pytest.mark.parametrize("matrices", [EYE, None])
@pytest.mark.parametrize("field", ["jacobian", "covariance"])
def test_expanded_keypoints_repeat_as_a_view(field, matrices):
    one = Keypoints(torch.rand(1, 1, 2), None)._replace(**{field: matrices})
    expanded = expand_keypoints(one, 3)
    assert torch.equal(expanded.value, torch.cat([one.value] * 3))
    assert expanded.value.data_ptr() == one.value.data_ptr()
    if matrices is None:
        assert getattr(expanded, field) is None
    else:
        assert torch.equal(getattr(expanded, field), torch.cat([matrices] * 3))


@pytest.mark.parametrize("field", ["jacobian", "covariance"])
def test_first_keypoints(field):
    three = Keypoints(torch.rand(3, 1, 2), None)._replace(**{field: torch.rand(3, 1, 2, 2)})
    first = first_keypoints(three)
    assert torch.equal(first.value, three.value[:1])
    assert torch.equal(getattr(first, field), getattr(three, field)[:1])
    assert sum(matrices is None for matrices in first) == 1
