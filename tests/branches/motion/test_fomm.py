"""The motion branch of kind fomm: gradients, precision, memory format, sizes, statistics."""

import pytest
import torch
from torch.testing import assert_close

from branches.model import Model
from branches.motion.fomm import FommBranch
from tests.helpers.factories import noise_inputs, tiny_config


def build(*overrides):
    config = tiny_config(*overrides, "discriminator=null")
    branch = Model(config).motion
    assert isinstance(branch, FommBranch)
    return branch.train(), noise_inputs(config)


def total_loss(branch, inputs):
    terms = branch.loss_terms(inputs, branch(inputs))
    return torch.stack([term.weighted for term in terms.values()]).sum()


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["motion.keypoint_detector.jacobian=shared", "motion.dense_motion.occlusion=false"],
        ["motion.keypoint_detector.jacobian=none", "motion.losses.equivariance_jacobian=0"],
    ],
)
def test_every_parameter_receives_a_gradient(overrides):
    branch, inputs = build(*overrides)
    total_loss(branch, inputs).backward()
    assert all(p.grad is not None for p in branch.parameters())
    # BatchNorm subtracts the mean, and with it the bias of the convolution before it: the gradient
    # of such a bias is only rounding error, and may be exactly zero.
    zero = {
        name
        for name, p in branch.named_parameters()
        if not p.grad.any() and not name.endswith("conv.bias") and "conv1.bias" not in name
    }
    assert not zero


def test_no_gradient_reaches_the_vgg_or_the_target():
    branch, inputs = build(
        "motion.losses.equivariance_value=0", "motion.losses.equivariance_jacobian=0"
    )
    assert not any(
        map_.requires_grad for level in inputs.target_features for map_ in level.values()
    )
    total_loss(branch, inputs).backward()
    assert all(p.grad is None for p in inputs.perceptual.parameters())


def test_terms_follow_the_weights():
    branch, inputs = build("motion.losses.pixel=2.5")
    terms = branch.loss_terms(inputs, branch(inputs))
    assert list(terms) == ["perceptual", "pixel", "equivariance_value", "equivariance_jacobian"]
    for name, weight in (("pixel", 2.5), ("equivariance_value", 10), ("perceptual", 10)):
        assert_close(terms[name].weighted, weight * terms[name].value)
    branch, inputs = build(
        "motion.losses.perceptual={relu1_1: 0}",
        "motion.losses.pixel=1",
        "motion.losses.equivariance_value=0",
    )
    assert list(branch.loss_terms(inputs, branch(inputs))) == ["pixel", "equivariance_jacobian"]


def test_random_transform_follows_from_the_generator():
    branch, inputs = build()
    output = branch.eval()(inputs)
    losses = []
    for seed in (1, 1, 2):
        inputs.context.random.generator.manual_seed(seed)
        losses.append(branch.loss_terms(inputs, output)["equivariance_value"].value.item())
    assert losses[0] == losses[1] != losses[2]


def test_bf16_losses_are_near_float32():
    branch, inputs = build()
    losses = []
    for enabled in (False, True):
        inputs.context.random.generator.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(total_loss(branch, inputs))
    assert losses[1].dtype == torch.float32
    assert_close(losses[1], losses[0], rtol=0.05, atol=0)


@torch.no_grad()
def test_channels_last_equals_contiguous():
    branch, inputs = build()
    expected = branch.eval()(inputs)
    layout = torch.channels_last
    branch.to(memory_format=layout)
    inputs = inputs._replace(
        source=inputs.source.contiguous(memory_format=layout),
        driving=inputs.driving.contiguous(memory_format=layout),
    )
    output = branch(inputs)
    assert_close(output.prediction, expected.prediction, atol=1e-5, rtol=0)
    assert_close(output.motion.deformation, expected.motion.deformation, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", ["[16, 48]", "[64, 32]"])
def test_sizes_that_are_not_square(size):
    branch, inputs = build(f"data.image_size={size}")
    output = branch(inputs)
    assert output.prediction.shape == inputs.source.shape
    total_loss(branch, inputs).backward()
    for picture in branch.pictures(inputs, output, 2).values():
        assert picture.shape == inputs.source.shape


def test_statistics_of_known_keypoints():
    branch, inputs = build()
    output = branch(inputs)
    statistics = branch.statistics(output)
    assert all(torch.isfinite(value) and value.ndim == 0 for value in statistics.values())
    square = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]).expand(2, 4, 2)
    moved = output._replace(
        source_keypoints=output.source_keypoints._replace(value=square),
        driving_keypoints=output.driving_keypoints._replace(
            value=square + torch.tensor([0.3, 0.4])
        ),
    )
    statistics = branch.statistics(moved)
    assert statistics["keypoint_spread"].item() == pytest.approx(0.5)
    assert statistics["keypoint_shift"].item() == pytest.approx(0.5)
    assert_close(statistics["occlusion_mean"], output.motion.occlusion_map.mean())


def test_smallest_determinant_of_both_frames():
    """It is an absolute value; a detector without Jacobians has no such statistic."""
    branch, inputs = build()
    output = branch(inputs)
    jacobians = torch.eye(2).repeat(2, 4, 1, 1)
    nearly_singular = jacobians.clone()
    nearly_singular[1, 2] = torch.tensor([[0.5, 0.25], [0.25, 0.12]])  # .06 - .0625

    def smallest(source, driving):
        moved = output._replace(
            source_keypoints=output.source_keypoints._replace(jacobian=source),
            driving_keypoints=output.driving_keypoints._replace(jacobian=driving),
        )
        return branch.statistics(moved)["smallest_determinant"].item()

    assert smallest(jacobians, jacobians) == 1
    assert smallest(nearly_singular, jacobians) == pytest.approx(0.0025, rel=1e-4)
    assert smallest(jacobians, nearly_singular) == pytest.approx(0.0025, rel=1e-4)
    branch, inputs = build(
        "motion.keypoint_detector.jacobian=none", "motion.losses.equivariance_jacobian=0"
    )
    assert "smallest_determinant" not in branch.statistics(branch(inputs))


def test_without_occlusion_there_is_no_such_statistic_or_picture():
    branch, inputs = build("motion.dense_motion.occlusion=false")
    output = branch(inputs)
    assert "occlusion_mean" not in branch.statistics(output)
    assert "occlusion map" not in branch.pictures(inputs, output, 2)


@torch.no_grad()
def test_pictures():
    branch, inputs = build()
    pictures = branch.pictures(inputs, branch(inputs), 2)
    assert list(pictures) == [
        "source", "driving", "warped source", "occlusion map", "motion weights", "prediction",
    ]  # fmt: skip
    for picture in pictures.values():
        assert picture.shape == inputs.source.shape
        assert -1e-6 <= picture.min() <= picture.max() <= 1 + 1e-6
