"""Animation via disentanglement: the network of motion avd, and what it trains on."""

import torch
from torch.testing import assert_close

from common.batch_random import BatchRandom
from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import expand_keypoints
from modules.tpsmm.avd import AVDNetwork, random_proportions


def keypoints(batch=1):
    return Keypoints(torch.rand(batch, 10, 2) * 2 - 1, None)


def avd():
    torch.manual_seed(0)
    return AVDNetwork(num_keypoints=10, identity_size=4, pose_size=8).eval()


@torch.no_grad()
def test_avd_takes_the_identity_of_the_source_and_the_pose_of_each_frame():
    network, source, driving = avd(), keypoints(), keypoints(3)
    moved = network(expand_keypoints(source, 3), driving)
    assert moved.value.shape == (3, 10, 2)
    pose = network.pose_encoder(driving.value.flatten(1))
    identity = network.id_encoder(source.value.flatten(1)).expand(3, -1)
    expected = network.decoder(torch.cat((pose, identity), dim=1)).view(3, 10, 2)
    assert_close(moved.value, expected)


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
