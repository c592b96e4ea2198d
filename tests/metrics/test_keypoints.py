"""Keypoint distances and missing keypoints by hand."""

import math

import torch
from torch.testing import assert_close

from metrics.keypoints import akd, akd_euclidean, mkr

MISSING = (math.nan, math.nan)


def points(*rows):
    return torch.tensor([rows], dtype=torch.float64)


def test_distances_by_hand():
    truth = points((0, 0), (10, 10))
    prediction = points((3, 4), (10, 8))  # off by (3, 4) and (0, -2)
    assert akd(prediction, truth).tolist() == [9 / 4]
    assert akd_euclidean(prediction, truth).tolist() == [7 / 2]


def test_a_shift():
    """For a sideways shift `akd` is half of it: the published mean is over both coordinates."""
    truth = torch.rand(3, 68, 2) * 256
    shifted = truth + torch.tensor([5.0, 0.0])
    assert_close(akd(shifted, truth), torch.full((3,), 2.5))
    assert_close(akd_euclidean(shifted, truth), torch.full((3,), 5.0))
    assert akd(truth, truth).tolist() == akd_euclidean(truth, truth).tolist() == [0, 0, 0]


def test_missing_keypoints():
    truth = points((0, 0), (10, 10), MISSING, (5, 5))
    prediction = points((2, 0), MISSING, (7, 7), (5, math.nan))
    assert akd(prediction, truth).tolist() == [1]
    assert akd_euclidean(prediction, truth).tolist() == [2]
    assert_close(mkr(prediction, truth), torch.tensor([2 / 3]))
    assert_close(mkr(truth, prediction), torch.tensor([1 / 2]))


def test_frames_without_keypoints_are_not_defined():
    some, none = points((1, 2), (3, 4)), points(MISSING, MISSING)
    frames, truth = torch.cat((none, some, none, some)), torch.cat((some, none, none, some))
    for metric in (akd, akd_euclidean):
        assert metric(frames, truth).isnan().tolist() == [True, True, True, False]
    assert_close(mkr(frames, truth)[[0, 3]], torch.tensor([1.0, 0.0]))
    assert mkr(frames, truth)[[1, 2]].isnan().all()
