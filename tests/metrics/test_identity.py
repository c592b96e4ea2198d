"""Distances of embeddings by hand."""

import math

import torch
from torch.testing import assert_close

from metrics.identity import aed, aed_squared


def test_by_hand_in_both_conventions():
    truth = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    prediction = torch.tensor([[0.0, 0.3, 0.4], [1.0, 1.0, 1.0]])
    assert_close(aed(prediction, truth), torch.tensor([0.5, 0.0]))
    assert_close(aed_squared(prediction, truth), torch.tensor([0.25, 0.0]))


def test_frames_without_a_face_are_not_defined():
    nobody = torch.full((1, 128), math.nan)
    frames, truth = torch.cat((nobody, torch.ones(1, 128))), torch.zeros(2, 128)
    for metric in (aed, aed_squared):
        assert metric(frames, truth).isnan().tolist() == [True, False]
        assert metric(truth, frames).isnan().tolist() == [True, False]


def test_one_embedding_against_all():
    """One target, such as the source's embedding, is compared with every prediction."""
    source, frames = torch.zeros(1, 4), torch.eye(4) * 2
    assert aed(frames, source).tolist() == [2] * 4
