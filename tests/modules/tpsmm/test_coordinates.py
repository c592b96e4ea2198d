"""What TPSMM regresses from whole frames: keypoints in groups, and the background's motion."""

import torch
from torch.testing import assert_close

from modules.tpsmm.background_predictor import BackgroundPredictor
from modules.tpsmm.keypoint_detector import GroupedKeypointDetector


def test_keypoints_group_by_group_x_first():
    detector = GroupedKeypointDetector(2).eval()
    last = detector.fg_encoder.fc
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.linspace(-2, 2, 20))
        found = detector(torch.rand(3, 3, 32, 48))
    assert found.jacobian is None
    # 2 sigmoid(x) - 1 = tanh(x / 2)
    expected = torch.tanh(torch.linspace(-2, 2, 20) / 2).view(10, 2)
    assert_close(found.value, expected.expand(3, -1, -1))


@torch.no_grad()
def test_coordinates_stay_float32_under_autocast():
    detector, frame = GroupedKeypointDetector(2).eval(), torch.rand(2, 3, 32, 32)
    background = BackgroundPredictor().eval()
    plain = detector(frame).value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = detector(frame).value
        affine = background(frame, frame)
    assert value.dtype == affine.dtype == torch.float32
    assert_close(value, plain, atol=0.05, rtol=0)


@torch.no_grad()
def test_the_background_stands_still_at_first():
    found = BackgroundPredictor()(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
    assert_close(found, torch.eye(3).expand(2, -1, -1))


@torch.no_grad()
def test_rows_of_the_affine_motion():
    background = BackgroundPredictor().eval()
    background.bg_encoder.fc.bias.copy_(torch.arange(6.0))
    found = background(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    assert found[0].tolist() == [[0, 1, 2], [3, 4, 5], [0, 0, 1]]


@torch.no_grad()
def test_the_background_network_sees_the_source_first():
    background = BackgroundPredictor()
    seen = []
    background.bg_encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    source, driving = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    background(source, driving)
    assert torch.equal(seen[0], torch.cat((source, driving), dim=1))
