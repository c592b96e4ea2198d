"""Mean and covariance of hand-made heatmaps, and the clipping of covariances."""

import math

import pytest
import torch
from torch.testing import assert_close

from modules.monkey_net.keypoint_detector import MonkeyNetKeypointDetector, clip_covariance
from tests.modules.test_keypoint_detector import Fixed


def detector(min_singular_value=None, scale=0.5, num_keypoints=3, temperature=0.1):
    torch.manual_seed(0)
    return MonkeyNetKeypointDetector(
        width=4,
        max_width=8,
        num_blocks=2,
        scale=scale,
        num_keypoints=num_keypoints,
        temperature=temperature,
        min_singular_value=min_singular_value,
    )


def of_logits(logits, **arguments):
    network = detector(**arguments)
    network.kp = Fixed(logits)
    return network(torch.rand(len(logits), 3, 32, 32))


def test_mean_and_covariance_by_hand():
    # At temperature .5 the left column has 3/4 of the weight: x is -1 or 1, and y, either, -1 or 1.
    logits = torch.zeros(1, 1, 2, 2)
    logits[..., 0] = 0.5 * math.log(3)
    found = of_logits(logits, temperature=0.5)
    assert_close(found.value, torch.tensor([[[-0.5, 0.0]]]))
    # 3/4 * .5^2 + 1/4 * 1.5^2 and 1
    assert_close(found.covariance, torch.tensor([[[[0.75, 0.0], [0.0, 1.0]]]]), atol=1e-6, rtol=0)
    assert found.jacobian is None


def test_slanted_heatmap():
    logits = torch.zeros(1, 1, 3, 3)
    logits[0, 0, 0, 0] = logits[0, 0, 2, 2] = 100.0  # two peaks on the diagonal
    found = of_logits(logits)
    assert_close(found.value, torch.zeros(1, 1, 2))
    assert_close(found.covariance, torch.ones(1, 1, 2, 2), atol=2e-6, rtol=0)


def test_every_pixel_has_a_little_weight():
    """A peak at the corner of 4 x 4: x + 1 is 0, 2/3, 4/3 and 2, and 1e-7 of each is added."""
    logits = torch.zeros(1, 1, 4, 4)
    logits[0, 0, 0, 0] = 100.0
    covariance = of_logits(logits).covariance[0, 0]
    variance = 1e-7 * 4 * (4 + 16 + 36) / 9
    mixed = 1e-7 * 4 * 4
    assert_close(
        covariance, torch.tensor([[variance, mixed], [mixed, variance]]), rtol=1e-4, atol=0
    )


def test_clipped_in_the_detector():
    logits = torch.zeros(1, 1, 4, 4)
    logits[0, 0, 0, 0] = 100.0
    covariance = of_logits(logits, min_singular_value=0.001).covariance
    smallest = torch.linalg.svdvals(covariance)[..., -1]
    assert_close(smallest, torch.tensor([[0.001]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("covariance", "smallest", "expected"),
    [
        ([[0.5, 0.0], [0.0, 0.02]], 0.08, [[2.0, 0.0], [0.0, 0.08]]),  # times 4
        ([[2.0, 1.0], [1.0, 2.0]], 1.5, [[3.0, 1.5], [1.5, 3.0]]),  # 1 and 3: times 1.5
        ([[2.0, 1.0], [1.0, 2.0]], 0.5, [[2.0, 1.0], [1.0, 2.0]]),
        ([[0.25, 0.0], [0.0, 0.25]], 0.5, [[0.5, 0.0], [0.0, 0.5]]),
    ],
)
def test_clip_by_hand(covariance, smallest, expected):
    found = clip_covariance(torch.tensor([covariance]), smallest)
    assert_close(found, torch.tensor([expected]))


def test_clip_sees_the_smaller_singular_value():
    factors = torch.randn(50, 2, 2, dtype=torch.float64)
    covariances = factors @ factors.mT
    sigma = torch.linalg.svdvals(covariances)[..., -1:, None]
    expected = covariances * sigma.clamp(min=0.3) / sigma
    assert_close(clip_covariance(covariances, 0.3), expected)


@pytest.mark.parametrize("smallest", [0.1, 1.0])
def test_gradient_of_clipping_a_round_covariance_is_finite(smallest):
    """Both singular values are the same, where the root in their formula has no slope."""
    covariance = (0.5 * torch.eye(2)).requires_grad_()
    clip_covariance(covariance, smallest).sum().backward()
    assert torch.isfinite(covariance.grad).all()


def test_gradient_of_clipping():
    factors = torch.randn(5, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: clip_covariance(f @ f.mT, 0.5), factors)


def test_every_fourth_pixel_without_a_blur():
    network = detector(scale=0.25)
    seen = []
    network.predictor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    frame = torch.rand(2, 3, 32, 48)
    found = network(frame)
    assert torch.equal(seen[0], frame[..., ::4, ::4])
    assert found.value.shape == (2, 3, 2)
    assert found.covariance.shape == (2, 3, 2, 2)


def test_every_parameter_gets_a_gradient():
    network = detector(min_singular_value=0.2)
    found = network(torch.rand(2, 3, 32, 32))
    (found.value.square().sum() + found.covariance.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def test_keypoints_stay_float32_under_autocast():
    network, frame = detector(), torch.rand(2, 3, 32, 32)
    plain = network(frame)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(frame)
    assert found.value.dtype == found.covariance.dtype == torch.float32
    assert_close(found.value, plain.value, atol=0.05, rtol=0)
    assert_close(found.covariance, plain.covariance, atol=0.05, rtol=0)
