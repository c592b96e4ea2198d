"""Every kind of motion model as a branch: gradients, statistics, pictures, sizes, precision."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from branches.model import Model
from modules.geometry import coordinate_grid
from tests.helpers.factories import noise_inputs, tiny_config
from tests.helpers.kinds import KINDS, use_small_resnets
from training.step import total

REST = [kind for kind in KINDS if kind != "fomm"]  # which has a file of its own


@pytest.fixture(autouse=True)
def small_resnets(monkeypatch):
    use_small_resnets(monkeypatch)


def build(kind, *overrides, batch=3):
    """The branch that a step of this kind trains, in training mode, and inputs of a step."""
    config = tiny_config(*KINDS[kind], *overrides)
    model = Model(config).train()
    return model.training_branches["motion"], noise_inputs(config, batch)


def terms_of(branch, inputs):
    return branch.loss_terms(inputs, branch(inputs))


def wake(branch):
    """Fill the layers that begin at zero, which let no gradient through."""
    for parameter in branch.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))


def biases_before_norms(branch):
    """Names of biases that a normalization subtracts: their gradient is rounding alone."""
    names = [name for name, _ in branch.named_parameters()]
    found = {n for n in names if n.endswith("conv.bias") or "conv1.bias" in n}
    for name, module in branch.named_modules():
        if isinstance(module, nn.Sequential):
            for i, (layer, next_layer) in enumerate(pairwise(module)):
                if isinstance(layer, nn.Linear) and isinstance(next_layer, nn.BatchNorm1d):
                    found.add(f"{name}.{i}.bias")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_receives_a_gradient(kind, monkeypatch):
    monkeypatch.undo()  # with ResNet-18
    branch, inputs = build(kind)
    wake(branch)
    total(terms_of(branch, inputs)).backward()
    trained = {name: p for name, p in branch.named_parameters() if p.requires_grad}
    assert all(parameter.grad is not None for parameter in trained.values())
    zero = {name for name, parameter in trained.items() if not parameter.grad.any()}
    assert zero <= biases_before_norms(branch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_is_trained_but_in_a_second_stage(kind):
    model = Model(tiny_config(*KINDS[kind]))
    expected = {"avd"} if kind == "tpsmm_avd" else set(model.networks)
    assert set(model.trained_networks) == expected


@pytest.mark.parametrize(
    ("kind", "overrides", "expected"),
    [
        ("monkey_net", (), {"pixel": 10, "deformed": 1}),
        (
            "monkey_net",
            ("motion.losses.deformed=0", "motion.losses.perceptual={relu1_1: 2}"),
            {"perceptual": 2, "pixel": 10},
        ),
        ("x2face", (), {"pixel": 1}),
        ("x2face", ("motion.losses.perceptual={relu1_1: 2}",), {"perceptual": 2, "pixel": 1}),
        (
            "tpsmm",
            (),
            {"perceptual": 10, "pixel": 1, "equivariance_value": 10, "warp": 10, "background": 10},
        ),
        (
            "tpsmm",
            tuple(f"motion.losses.{n}=0" for n in ("warp", "background", "equivariance_value")),
            {"perceptual": 10, "pixel": 1},
        ),
        ("tpsmm", ("motion.background_motion=null", "motion.losses.warp=3"), {"warp": 3}),
        ("tpsmm_avd", ("motion.losses.avd=7",), {"avd": 7}),
    ],
)
def test_terms_follow_the_weights(kind, overrides, expected):
    terms = terms_of(*build(kind, *overrides))
    if "motion.background_motion=null" in overrides:
        assert "background" not in terms
    else:
        assert terms.keys() == expected.keys()
    for name, weight in expected.items():
        assert_close(terms[name].weighted, weight * terms[name].value)


@pytest.mark.parametrize("kind", REST)
def test_no_gradient_reaches_the_vgg_or_the_target(kind):
    branch, inputs = build(kind)
    assert not any(
        map_.requires_grad for level in inputs.target_features for map_ in level.values()
    )
    total(terms_of(branch, inputs)).backward()
    assert all(p.grad is None for p in inputs.perceptual.parameters())


COLUMNS = {
    "monkey_net": ["source", "driving", "warped source", "motion weights", "prediction"],
    "x2face": ["source", "driving", "warped source", "prediction"],
    "tpsmm": [
        *("source", "driving", "warped source", "occlusion map", "motion weights", "prediction")
    ],
    "tpsmm_avd": ["source", "driving", "stretched", "restored", "prediction"],
}
STATISTICS = {
    "monkey_net": {"keypoint_spread", "keypoint_shift", "background_weight"},
    "x2face": {"field_shift"},
    "tpsmm": {"keypoint_spread", "keypoint_shift", "background_weight", "occlusion_mean"},
    "tpsmm_avd": {"stretch", "keypoint_spread"},
}


@torch.no_grad()
@pytest.mark.parametrize("kind", REST)
def test_pictures_and_statistics(kind):
    branch, inputs = build(kind)
    output = branch(inputs)
    statistics = branch.statistics(output)
    assert statistics.keys() == STATISTICS[kind]
    assert all(torch.isfinite(value) and value.ndim == 0 for value in statistics.values())
    pictures = branch.pictures(inputs, output, 2)
    assert list(pictures) == COLUMNS[kind]
    for picture in pictures.values():
        assert picture[:2].shape == inputs.source[:2].shape
        assert -1e-6 <= picture.min() <= picture.max() <= 1 + 1e-6


@torch.no_grad()
def test_occlusion_of_monkey_net_has_its_statistic_and_its_picture():
    branch, inputs = build("monkey_net", "motion.dense_motion.occlusion=true")
    output = branch(inputs)
    assert 0 < branch.statistics(output)["occlusion_mean"] < 1
    assert "occlusion map" in branch.pictures(inputs, output, 2)


@torch.no_grad()
def test_shift_of_a_known_field():
    branch, inputs = build("x2face")
    output = branch(inputs)
    field = coordinate_grid(32, 32, inputs.source).expand(3, -1, -1, -1)
    moved = output._replace(motion=output.motion._replace(deformation=field + torch.tensor([3, 4])))
    assert branch.statistics(moved)["field_shift"].item() == pytest.approx(5)


@pytest.mark.parametrize("kind", REST)
def test_sizes_that_are_not_square(kind):
    branch, inputs = build(kind, "data.image_size=[32, 64]")
    output = branch(inputs)
    total(branch.loss_terms(inputs, output)).backward()
    for picture in branch.pictures(inputs, output, 3).values():
        assert picture.shape == inputs.source.shape


@torch.no_grad()
@pytest.mark.parametrize("kind", ["monkey_net", "x2face", "tpsmm"])
def test_a_step_predicts_what_animation_does(kind):
    """Of one sample, with the camera's motion where the model has it."""
    branch, inputs = build(kind, batch=1)
    branch.eval()
    source = branch.encode(inputs.source)
    pose = branch.detect(inputs.driving)
    output = branch(inputs)
    predicted = branch.predict(source, pose, inputs.driving)
    assert_close(predicted, output.prediction, atol=1e-6, rtol=0)
    motion = branch.estimate_motion(source, pose, inputs.driving)
    assert_close(motion.deformation, output.motion.deformation, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["monkey_net", "x2face", "tpsmm"])
def test_channels_last_equals_contiguous(kind):
    branch, inputs = build(kind)
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
