"""Keypoints of hand-made heatmaps, Jacobian modes, precision."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from modules.keypoint_detector import KeypointDetector


def detector(jacobian="per_keypoint", num_keypoints=3, temperature=0.1):
    torch.manual_seed(0)
    return KeypointDetector(
        width=4,
        max_width=8,
        num_blocks=2,
        scale=0.5,
        num_keypoints=num_keypoints,
        jacobian=jacobian,
        temperature=temperature,
    )


class Fixed(nn.Module):
    """A convolution that gives the same maps for any input."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, features):
        return self.maps


def test_peak_gives_its_coordinate():
    network = detector()
    logits = torch.zeros(1, 3, 5, 9)
    logits[0, 0, 0, 8] = logits[0, 1, 3, 2] = 100.0
    network.kp = Fixed(logits)
    network.jacobian = None
    value = network(torch.rand(1, 3, 32, 32)).value[0]
    assert_close(value[0], torch.tensor([1.0, -1.0]))  # top right, x first
    assert_close(value[1], torch.tensor([-0.5, 0.5]))
    assert_close(value[2], torch.tensor([0.0, 0.0]))  # a flat heatmap: the centre


def test_softmax_at_temperature_and_jacobian_under_the_heatmap():
    network = detector(num_keypoints=1, temperature=0.5)
    # Logits differ by 0.5 ln 3: at temperature 0.5 the weights are 3/4 and 1/4.
    network.kp = Fixed(torch.tensor([[[[0.5 * torch.log(torch.tensor(3.0)), 0.0]]]]))
    maps = torch.zeros(1, 4, 1, 2)
    maps[0, :, 0, 0], maps[0, :, 0, 1] = torch.tensor([1.0, 2, 3, 4]), torch.tensor([5.0, 6, 7, 8])
    network.jacobian = Fixed(maps)
    found = network(torch.rand(1, 3, 32, 32))
    assert_close(found.value, torch.tensor([[[-0.5, 0.0]]]))
    assert_close(found.jacobian, torch.tensor([[[[2.0, 3.0], [4.0, 5.0]]]]))


@pytest.mark.parametrize("mode", ["per_keypoint", "shared"])
def test_jacobian_starts_at_the_identity(mode):
    found = detector(mode)(torch.rand(2, 3, 32, 48))
    assert found.value.shape == (2, 3, 2)
    assert found.value.abs().max() <= 1
    assert_close(found.jacobian, torch.eye(2).expand(2, 3, 2, 2))


@pytest.mark.parametrize(("mode", "maps"), [("per_keypoint", 12), ("shared", 4)])
def test_number_of_jacobian_maps(mode, maps):
    assert detector(mode).jacobian.out_channels == maps


def test_shared_jacobian_is_averaged_under_each_heatmap():
    network = detector("shared", num_keypoints=2)
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 0, 0, 0] = logits[0, 1, 0, 1] = 100.0
    network.kp = Fixed(logits)
    network.jacobian = Fixed(torch.tensor([1.0, 2.0]).expand(1, 4, 1, 2))
    assert_close(network(torch.rand(1, 3, 32, 32)).jacobian[0, :, 0, 0], torch.tensor([1.0, 2.0]))


def test_without_jacobians():
    network = detector("none")
    assert network.jacobian is None
    assert network(torch.rand(2, 3, 32, 32)).jacobian is None


def test_keypoints_stay_float32_under_autocast():
    network, frame = detector(), torch.rand(2, 3, 32, 32)
    plain = network(frame)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(frame)
    assert found.value.dtype == found.jacobian.dtype == torch.float32
    assert_close(found.value, plain.value, atol=0.05, rtol=0)
