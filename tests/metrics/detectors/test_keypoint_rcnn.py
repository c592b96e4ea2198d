"""Keypoint R-CNN: how its output is read. The tests do not have its trained weights."""

import warnings
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torchvision.models.detection import (
    KeypointRCNN_ResNet50_FPN_Weights,
    keypointrcnn_resnet50_fpn,
)

from common.errors import UserError
from metrics.detectors.keypoint_rcnn import KeypointRCNN, build_network, largest_person


def people(*boxes_and_scores):
    """Output of the network: keypoint k of person n is at (10 n + k + 0.5, 20), scores are high."""
    count = len(boxes_and_scores)
    keypoints = torch.ones(count, 17, 3)
    keypoints[:, :, 0] = 10 * torch.arange(count)[:, None] + torch.arange(17) + 0.5
    keypoints[:, :, 1] = 20
    return {
        "boxes": torch.tensor([box for box, _ in boxes_and_scores], dtype=torch.float).view(-1, 4),
        "scores": torch.tensor([score for _, score in boxes_and_scores]),
        "keypoints": keypoints,
        "keypoints_scores": torch.full((count, 17), 5.0),
    }


def test_the_largest_of_those_that_are_certain():
    found = people(((0, 0, 90, 90), 0.6), ((0, 0, 10, 10), 0.99), ((5, 0, 25, 9), 0.8))
    points = largest_person(found)
    assert points.shape == (17, 2)
    assert points.dtype == np.float64
    # The network puts 0 at the edge of the frame; our points have it at the first pixel's centre.
    assert_allclose(points, np.stack((20 + np.arange(17), np.full(17, 19.5)), axis=1))


def test_points_of_a_low_score_are_not_given():
    found = people(((0, 0, 10, 10), 0.99))
    found["keypoints_scores"][0, 3] = 1.9
    missing = np.isnan(largest_person(found))
    assert missing[3].all()
    assert missing.sum() == 2


def test_a_frame_without_a_person():
    for found in (people(), people(((0, 0, 10, 10), 0.5))):
        assert np.isnan(largest_person(found)).all()
        assert largest_person(found).shape == (17, 2)


@pytest.mark.parametrize("logit", [-5.0, 5.0])
def test_the_real_network_untrained(logit):
    """Its biases are set so that every box is a person, or none is."""
    network = keypointrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=64, max_size=96, box_detections_per_img=2
    )
    heads = network.roi_heads
    with torch.no_grad():
        heads.box_predictor.cls_score.weight.zero_()
        heads.box_predictor.cls_score.bias.copy_(torch.tensor([-logit, logit]))
        heads.keypoint_predictor.kps_score_lowres.weight.zero_()
        heads.keypoint_predictor.kps_score_lowres.bias.fill_(9)
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    points = KeypointRCNN(network, torch.device("cpu")).landmarks(frame)
    assert points.shape == (17, 2)
    if logit < 0:
        assert np.isnan(points).all()
    else:
        assert (points >= -0.5).all()
        assert (points <= (95.5, 63.5)).all()


def test_same_network_as_torchvision_builds_for_its_weights(monkeypatch):
    with torch.device("meta"):
        network = build_network()
        monkeypatch.setattr(
            KeypointRCNN_ResNet50_FPN_Weights,
            "get_state_dict",
            lambda _weights, **_options: network.state_dict(),
        )
        with warnings.catch_warnings(action="ignore"):  # nothing is copied on this device
            expected = keypointrcnn_resnet50_fpn(weights="COCO_V1")
    assert str(network) == str(expected)
    assert "eps=0.0" in str(network)
    needs_gradient = [(name, p.requires_grad) for name, p in network.named_parameters()]
    assert needs_gradient == [(name, p.requires_grad) for name, p in expected.named_parameters()]


def test_failed_download(monkeypatch, tmp_path):
    def offline(*_arguments, **_options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="could not be downloaded") as raised:
        KeypointRCNN.trained(torch.device("cpu"))
    assert "keypointrcnn_resnet50_fpn_coco-fc266e95.pth" in str(raised.value)
    assert str(tmp_path / "hub" / "checkpoints") in str(raised.value)
    assert "\n" not in str(raised.value)
