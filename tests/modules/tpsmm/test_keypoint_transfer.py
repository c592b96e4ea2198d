"""The three modes of TPSMM, and the network of the third."""

import math

import pytest
import torch
from torch.testing import assert_close

from common.batch_random import BatchRandom
from modules.keypoint_detector import Keypoints
from modules.tpsmm.avd import AVDNetwork, random_proportions
from modules.tpsmm.keypoint_transfer import keypoint_transfer


def keypoints(batch=1):
    return Keypoints(torch.rand(batch, 10, 2) * 2 - 1, None)


def avd():
    torch.manual_seed(0)
    return AVDNetwork(num_keypoints=10, identity_size=4, pose_size=8).eval()


def test_absolute_keypoints_are_those_of_the_driving_frame():
    driving = keypoints(3)
    assert keypoint_transfer("absolute", keypoints(), keypoints(), None)(driving) is driving


def test_relative_motion_always_has_the_scale_of_the_hulls():
    source = Keypoints(torch.tensor([[[0.0, 0.0], [0.6, 0.0], [0.0, 0.6]]]), None)  # area 0.18
    first = Keypoints(torch.tensor([[[0.1, 0.1], [0.3, 0.1], [0.1, 0.4]]]), None)  # area 0.03
    driving = Keypoints(torch.stack((first.value[0] + 0.1, first.value[0])), None)
    moved = keypoint_transfer("relative", source, first, None)(driving)
    assert_close(moved.value[0], source.value[0] + 0.1 * math.sqrt(6))
    assert_close(moved.value[1], source.value[0])


@torch.no_grad()
def test_avd_takes_the_identity_of_the_source_and_the_pose_of_each_frame():
    network, source, driving = avd(), keypoints(), keypoints(3)
    moved = keypoint_transfer("avd", source, keypoints(), network)(driving)
    assert moved.value.shape == (3, 10, 2)
    pose = network.pose_encoder(driving.value.flatten(1))
    identity = network.id_encoder(source.value.flatten(1)).expand(3, -1)
    expected = network.decoder(torch.cat((pose, identity), dim=1)).view(3, 10, 2)
    assert_close(moved.value, expected)


def test_avd_without_its_network():
    with pytest.raises(ValueError, match="trained without one"):
        keypoint_transfer("avd", keypoints(), keypoints(), None)


@torch.no_grad()
def test_avd_stays_float32_under_autocast():
    network, source, driving = avd(), keypoints(2), keypoints(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = network(source, driving).value
    assert torch.equal(inside, network(source, driving).value)


def test_random_proportions_stretch_each_axis_of_each_sample():
    points = keypoints(200)
    random = BatchRandom(torch.Generator().manual_seed(0))
    factors = random_proportions(points, (0.75, 1.25), random).value / points.value
    assert_close(factors, factors[:, :1].expand_as(factors))  # one for all keypoints of a frame
    drawn = factors[:, 0]
    assert 0.75 <= drawn.min() < 0.78 < 1.22 < drawn.max() <= 1.25
    assert (drawn[:, 0] - drawn[:, 1]).abs().max() > 0.3
