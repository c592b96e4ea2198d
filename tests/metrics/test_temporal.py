"""The temporal metric by hand."""

import pytest
import torch
from torch.testing import assert_close

from metrics.temporal import temporal_difference


def grey(*levels):
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()


def test_by_hand():
    truth = grey(0.1, 0.2, 0.2, 0.5)
    prediction = grey(0.4, 0.4, 0.7, 0.6)  # changes by 0, .3, -.1; the truth by .1, 0, .3
    values = temporal_difference(prediction, truth)
    assert values[0].isnan()
    assert_close(values[1:], torch.tensor([0.1, 0.3, 0.4]))


def test_mean_over_pixels_and_channels():
    truth = torch.zeros(2, 3, 2, 2)
    prediction = truth.clone()
    prediction[1, 0, 0, 0] = 0.6
    prediction[1, 1, 1, 1] = -0.6  # must not cancel
    assert_close(temporal_difference(prediction, truth)[1], torch.tensor(0.1))


def test_an_error_that_stays_is_no_change():
    truth = torch.rand(4, 3, 8, 8)
    values = temporal_difference(truth + torch.rand(3, 8, 8), truth)
    assert_close(values[1:], torch.zeros(3))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_clip_in_parts(size):
    prediction, truth = torch.rand(2, 5, 3, 8, 8)
    values, previous = [], None
    for part in zip(prediction.split(size), truth.split(size), strict=True):
        values.append(temporal_difference(*part, previous))
        previous = part[0][-1], part[1][-1]
    whole = temporal_difference(prediction, truth)
    assert_close(torch.cat(values), whole, equal_nan=True, rtol=0, atol=0)
    assert whole.isnan().tolist() == [True] + [False] * 4
