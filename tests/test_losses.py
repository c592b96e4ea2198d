"""Loss terms by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from losses import (
    build_perceptual,
    equivariance_jacobian_loss,
    equivariance_value_loss,
    perceptual_layers,
    perceptual_loss,
    pixel_loss,
    weigh,
)
from modules.keypoint_detector import Keypoints
from modules.thin_plate import ThinPlateTransform, control_grid, random_thin_plate
from tests.factories import tiny_config, tiny_perceptual


def test_perceptual_loss_by_hand():
    def features(*values):
        return [{"a": torch.tensor([x, y]), "b": torch.tensor([z])} for x, y, z in values]

    prediction = features((1.0, 2.0, 3.0), (0.0, 0.0, 1.0))
    target = features((0.0, 0.0, 1.0), (1.0, 0.0, 5.0))
    term = perceptual_loss(prediction, target, {"a": 10.0, "b": 0.5})
    # Scale 1: mean(1, 2) and 2; scale 2: mean(1, 0) and 4.
    assert term.value.item() == pytest.approx(1.5 + 2 + 0.5 + 4)
    assert term.weighted.item() == pytest.approx(10 * (1.5 + 0.5) + 0.5 * (2 + 4))


def test_layer_with_weight_zero_is_not_asked_for():
    layers = "motion.losses.perceptual={relu1_1: 1.0, relu3_1: 0}"
    config = tiny_config(layers)
    assert perceptual_layers(config) == {"relu1_1"}
    features = tiny_perceptual(config)(torch.rand(1, 3, 32, 32))
    perceptual_loss(features, features, config.motion.losses.perceptual)


def test_pixel_loss_and_weight():
    value = pixel_loss(torch.tensor([0.0, 1.0]).bfloat16(), torch.tensor([0.5, 1.0]))
    assert value.dtype == torch.float32
    assert weigh(value, 4.0) == (0.25, 1.0)


def test_pyramid_has_the_scales_of_the_config_in_order():
    config = tiny_config("perceptual.scales=[0.5, 1.0]")
    features = tiny_perceptual(config)(torch.rand(2, 3, 32, 48))
    assert [tuple(level["relu1_1"].shape) for level in features] == [(2, 4, 16, 24), (2, 4, 32, 48)]


def test_random_features_are_the_same_for_every_run_and_keep_their_size():
    config = tiny_config("perceptual.width=16")
    image = torch.rand(1, 3, 32, 32)
    torch.manual_seed(1)
    first = tiny_perceptual(config)(image)
    torch.manual_seed(2)
    second = tiny_perceptual(config)(image)
    for before, after in zip(first, second, strict=True):
        for name, map_ in before.items():
            assert torch.equal(map_, after[name])
            assert 0.1 < map_.std() < 10


def test_stored_weights_are_loaded_by_torchvision_name():
    config = tiny_config().perceptual
    source = build_perceptual(config, {"relu2_1"}, None).vgg.convs.state_dict()
    state = {name: tensor + 1 for name, tensor in source.items()} | {"7.weight": torch.ones(1)}
    loaded = build_perceptual(config, {"relu1_2"}, state)
    assert list(loaded.vgg.convs) == ["0", "2"]
    assert torch.equal(loaded.vgg.convs["2"].bias, state["2.bias"])


def keypoints(value, jacobian=None):
    return Keypoints(value, jacobian)


def test_equivariance_losses_vanish_for_keypoints_that_transform_exactly():
    generator = torch.Generator().manual_seed(0)
    transform = random_thin_plate(2, 0.05, 0.05, 5, generator)
    value = torch.rand(2, 3, 2, generator=generator) - 0.5
    jacobian = torch.eye(2) + 0.3 * torch.rand(2, 3, 2, 2, generator=generator)
    transformed = keypoints(value, jacobian)
    # Keypoint motion chains: J_D = (dT/dz) J_T.
    driving = keypoints(transform.points(value), transform.jacobian(value) @ jacobian)
    assert equivariance_value_loss(driving, transformed, transform).item() == 0
    loss = equivariance_jacobian_loss(driving, transformed, transform)
    assert_close(loss, torch.zeros(()), atol=1e-6, rtol=0)


def test_equivariance_losses_by_hand():
    affine = torch.tensor([[[2.0, 0.0, 0.1], [0.0, 2.0, 0.0]]])
    transform = ThinPlateTransform(affine, torch.zeros(1, 4), control_grid(2, affine))
    eye = torch.eye(2).view(1, 1, 2, 2)
    driving = keypoints(torch.tensor([[[0.5, 0.5]]]), 4 * eye)
    transformed = keypoints(torch.tensor([[[0.1, 0.2]]]), eye)
    # T(p_T) = (0.3, 0.4), 0.2 and 0.1 off; J_D^-1 (dT/dz) J_T = I / 2, off by 1/2 on the diagonal.
    value = equivariance_value_loss(driving, transformed, transform)
    assert value.item() == pytest.approx(0.15)
    assert equivariance_jacobian_loss(driving, transformed, transform).item() == 0.25


def test_jacobian_loss_without_jacobians_is_an_error():
    transform = random_thin_plate(1, 0.05, 0.005, 5, torch.Generator())
    without = keypoints(torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="equivariance_jacobian"):
        equivariance_jacobian_loss(without, without, transform)


def test_jacobian_loss_stays_float32_under_autocast():
    generator = torch.Generator().manual_seed(0)
    transform = random_thin_plate(1, 0.05, 0.005, 5, generator)
    points = keypoints(
        torch.rand(1, 4, 2), torch.eye(2) + torch.rand(1, 4, 2, 2, generator=generator) / math.pi
    )
    plain = equivariance_jacobian_loss(points, points, transform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = equivariance_jacobian_loss(points, points, transform)
    assert torch.equal(plain, inside)
