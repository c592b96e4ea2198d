"""Distances and similarity of embeddings by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from metrics.identity import aed, aed_squared, csim


def test_by_hand_in_both_conventions():
    truth = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    prediction = torch.tensor([[0.0, 0.3, 0.4], [1.0, 1.0, 1.0]])
    assert_close(aed(prediction, truth), torch.tensor([0.5, 0.0]))
    assert_close(aed_squared(prediction, truth), torch.tensor([0.25, 0.0]))


def test_frames_without_a_face_are_not_defined():
    nobody = torch.full((1, 128), math.nan)
    frames, truth = torch.cat((nobody, torch.ones(1, 128))), torch.ones(2, 128)
    for metric in (aed, aed_squared, csim):
        assert metric(frames, truth).isnan().tolist() == [True, False]
        assert metric(truth, frames).isnan().tolist() == [True, False]


def test_one_embedding_against_all():
    """One target, such as the source's embedding, is compared with every prediction."""
    source, frames = torch.zeros(1, 4), torch.eye(4) * 2
    assert aed(frames, source).tolist() == [2] * 4
    assert csim(frames, torch.tensor([[3.0, 4.0, 0.0, 0.0]])).tolist() == pytest.approx(
        [0.6, 0.8, 0, 0]
    )


def test_similarity_by_hand():
    """(3, 4) has length 5: with (4, 3) 24 / 25, with itself 1, at a right angle 0, opposite -1."""
    truth = torch.tensor([[3.0, 4.0]])
    prediction = torch.tensor([[4.0, 3.0], [3.0, 4.0], [-4.0, 3.0], [-6.0, -8.0]])
    assert csim(prediction, truth).tolist() == pytest.approx([0.96, 1, 0, -1])


def test_similarity_ignores_lengths_unlike_aed():
    truth = torch.tensor([[0.1, 0.2]])
    assert csim(truth * 7, truth).item() == pytest.approx(1)
    assert csim(truth * 7, truth).item() <= 1
    assert aed(truth * 7, truth).item() > 1


def test_an_embedding_without_direction_has_no_similarity():
    assert csim(torch.zeros(1, 3), torch.ones(1, 3)).isnan().all()
