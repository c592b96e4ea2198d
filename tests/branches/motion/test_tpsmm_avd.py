"""The second stage of kind tpsmm: what is frozen, what it learns, and how it animates."""

import math

import pytest
import torch
from torch.testing import assert_close

from animation.branch_animators import MotionAnimator, reconstruction_animators
from branches.model import Model
from branches.motion.tpsmm import TpsmmBranch
from common.batch_random import BatchRandom
from modules.keypoint_detector import Keypoints
from modules.tpsmm.avd import random_proportions
from tests.branches.motion.test_kinds import build
from tests.helpers.factories import noise_inputs, tiny_config
from tests.helpers.kinds import AVD, KINDS, TPSMM, use_small_resnets
from training.step import total

FROZEN = {"keypoint_detector", "dense_motion", "inpainting", "background_motion"}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_resnets(monkeypatch):
    use_small_resnets(monkeypatch)


@pytest.fixture
def model():
    return Model(tiny_config(*KINDS["tpsmm_avd"]))


def test_everything_but_avd_is_frozen(model):
    for mode in (True, False, True):
        model.train(mode)
        assert model.motion.training == mode
        for name, network in model.networks.items():
            expected = mode and name == "avd"
            assert all(module.training == expected for module in network.modules()), name
    assert set(model.networks) == FROZEN | {"avd"}
    for name, network in model.networks.items():
        assert {p.requires_grad for p in network.parameters()} == {name == "avd"}


def test_masks_and_background_beside_it_are_frozen():
    model = Model(tiny_config(TPSMM, AVD, "discriminator=null"))
    assert list(model.branches) == ["motion", "masks", "background"]
    assert list(model.trained_networks) == ["avd"]
    assert list(model.training_branches) == ["motion"]


def test_the_first_stage_begins_with_the_same_weights(model):
    first = Model(tiny_config(*KINDS["tpsmm"]))
    assert first.second_stage is None
    assert set(first.networks) == FROZEN
    for name, network in first.networks.items():
        assert_close(network.state_dict(), model.networks[name].state_dict(), rtol=0, atol=0)
    assert first.motion.modes == ("relative", "absolute")
    assert model.motion.modes == ("relative", "absolute", "avd")


def test_it_restores_the_driving_keypoints_from_stretched_ones():
    branch, inputs = build("tpsmm_avd", batch=4)
    state = inputs.context.random.generator.get_state()
    output = branch(inputs)
    draws = BatchRandom(torch.Generator().set_state(state))
    driving = branch.motion.detect(inputs.driving)
    assert_close(output.driving_keypoints.value, driving.value, rtol=0, atol=0)
    stretched = random_proportions(driving, (0.75, 1.25), draws)
    assert_close(output.stretched.value, stretched.value, rtol=0, atol=0)
    assert not output.stretched.value.requires_grad
    value = (output.restored.value - driving.value).abs().mean()
    assert_close(branch.loss_terms(inputs, output)["avd"].value, value)
    expected = branch.motion.avd(branch.motion.detect(inputs.source), stretched)
    assert_close(output.restored.value, expected.value)
    statistics = branch.statistics(output)
    assert_close(statistics["stretch"], (stretched.value - driving.value).abs().mean())


def test_a_step_makes_no_prediction_and_pictures_make_those_that_they_show(monkeypatch):
    rendered = []
    decode = TpsmmBranch.predict

    def predict(self, source, pose, driving=None):
        rendered.append(len(pose.value))
        return decode(self, source, pose, driving)

    monkeypatch.setattr(TpsmmBranch, "predict", predict)
    branch, inputs = build("tpsmm_avd", batch=8)
    output = branch(inputs)
    branch.loss_terms(inputs, output)
    branch.statistics(output)
    assert rendered == []
    with torch.no_grad():
        pictures = branch.pictures(inputs, output, 3)
    assert rendered == [1, 1, 1]
    assert {len(picture) for picture in pictures.values()} == {3}


@torch.no_grad()
def test_pictures_show_the_source_at_the_restored_keypoints():
    branch, inputs = build("tpsmm_avd", batch=4)
    output = branch(inputs)
    found = branch.pictures(inputs, output, 4)["prediction"][2:3]
    source, driving = inputs.source[2:3], inputs.driving[2:3]
    pose = Keypoints(output.restored.value[2:3], None)
    expected = branch.motion.predict(branch.motion.encode(source), pose, driving)
    assert_close(found, expected)


def figures(proportions, angles):
    """Keypoints, B x 10 x 2, of figures with these proportions, B x 2, turned by their angles."""
    points = torch.rand(10, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rows = torch.stack((angles.cos(), -angles.sin(), angles.sin(), angles.cos()), dim=-1)
    return Keypoints((points @ rows.view(-1, 2, 2).mT) * proportions.unsqueeze(1), None)


def test_it_learns_the_proportions_of_the_source(monkeypatch):
    """Poses and proportions differ; only the source tells which proportions are right."""
    branch, inputs = build("tpsmm_avd", "motion.avd.code=16", batch=64)
    draw = inputs.context.random.uniform
    proportions = 0.4 + 0.5 * draw(64, 2)
    keypoints = {
        id(frames): figures(proportions, 2 * math.pi * draw(64))
        for frames in (inputs.source, inputs.driving)
    }
    monkeypatch.setattr(branch.motion, "detect", lambda frames: keypoints[id(frames)])
    adam = torch.optim.Adam(branch.motion.avd.parameters(), lr=1e-3)
    for _ in range(60):
        adam.zero_grad()
        output = branch(inputs)
        loss = total(branch.loss_terms(inputs, output))
        loss.backward()
        adam.step()
    assert loss < 0.6 * branch.statistics(output)["stretch"]


@torch.no_grad()
def test_animation_and_validation_use_it(model):
    model.eval()
    frames = noise_inputs(tiny_config(*KINDS["tpsmm_avd"]), 3)
    source, driving = frames.source[:1], frames.driving
    branch = model.motion
    found = MotionAnimator(branch, CPU, motion="avd").start(source)(driving)
    encoded = branch.encode(source)
    pose = branch.disentangled_pose(encoded.keypoints, branch.detect(driving))
    assert_close(found, branch.predict(encoded, pose))
    assert pose.value.shape == (3, 10, 2)
    absolute = MotionAnimator(branch, CPU, motion="absolute").start(source)(driving)
    assert not torch.allclose(found, absolute, atol=1e-4)
    assert reconstruction_animators(model, CPU)["motion"].motion == "absolute"
    assert reconstruction_animators(model, CPU, "avd")["motion"].motion == "avd"


def test_other_kinds_have_no_such_motion():
    for kind in ("fomm", "monkey_net", "x2face", "tpsmm"):
        assert "avd" not in Model(tiny_config(*KINDS[kind])).motion.modes
