"""Intersection over union by hand."""

import torch
from torch.testing import assert_close

from metrics.masks import mask_iou


def mask(*rows):
    return torch.tensor(rows, dtype=torch.bool).view(1, 1, len(rows), -1)


def test_iou_by_hand_mask_by_mask():
    prediction = torch.cat((mask((1, 1, 0), (1, 0, 0)), mask((1, 1, 1), (1, 1, 1))))
    truth = torch.cat((mask((1, 0, 0), (1, 1, 0)), mask((0, 1, 0), (0, 0, 0))))
    assert_close(mask_iou(prediction, truth), torch.tensor([2 / 4, 1 / 6]))
    assert_close(mask_iou(truth, prediction), torch.tensor([2 / 4, 1 / 6]))


def test_equal_masks_and_masks_apart():
    left, right = mask((1, 0), (1, 0)), mask((0, 1), (0, 1))
    assert mask_iou(left, left).tolist() == [1.0]
    assert mask_iou(left, right).tolist() == [0.0]


def test_empty_masks():
    empty, full = mask((0, 0), (0, 0)), mask((1, 1), (1, 1))
    assert mask_iou(empty, empty).tolist() == [1.0]
    assert mask_iou(empty, full).tolist() == [0.0]
    assert mask_iou(full, empty).tolist() == [0.0]
