"""The keypoint prior: the formula by hand."""

import math

import pytest
import torch

from branches.model import Model
from branches.motion.branch import keypoint_prior_terms
from branches.outputs import MotionMaps, MotionOutput
from configs.motion.section import KeypointPriorConfig
from losses import keypoint_prior_loss
from modules.keypoint_detector import Keypoints
from tests.helpers.factories import at_epoch, noise_inputs, tiny_config
from tests.helpers.kinds import KINDS, use_small_resnets


def keypoints(*points):
    """One frame with keypoints at these (x, y)."""
    return Keypoints(torch.tensor([points]), None)


def only(row, column, size=3):
    """Changed at one pixel of size x size."""
    changed = torch.zeros(1, 1, size, size, dtype=torch.bool)
    changed[0, 0, row, column] = True
    return changed


def test_one_keypoint_is_a_squared_distance():
    # Pixels of 3 x 3 are at -1, 0, 1; the pixel of row 0 and column 2 is at (1, -1).
    loss = keypoint_prior_loss(keypoints((0.0, 0.5)), only(0, 2), 0.02)
    assert loss.item() == pytest.approx(1.0 + 1.5**2)


def test_soft_minimum_by_hand():
    points = keypoints((0.0, 0.0), (1.0, 0.0))  # at distances 1 and 0 of the pixel (1, 0)
    loss = keypoint_prior_loss(points, only(1, 2), 0.5)
    assert loss.item() == pytest.approx(-0.5 * math.log(math.exp(-2) + 1))


def test_mean_over_changed_pixels_and_pairs():
    points = Keypoints(torch.zeros(2, 1, 2), None)
    changed = torch.cat((only(1, 2) | only(0, 0), only(1, 1)))
    # At distances 1 and sqrt(2) in the first pair, 0 in the second.
    loss = keypoint_prior_loss(points, changed, 0.02)
    assert loss.item() == pytest.approx(((1 + 2) / 2 + 0) / 2)


def test_hardly_any_change_counts_for_less_and_none_for_nothing():
    points = keypoints((0.0, 0.0))
    changed = only(0, 0, 20)  # one of 400 pixels, a quarter of 1%
    assert keypoint_prior_loss(points, changed, 0.02).item() == pytest.approx(2 / 4)
    still = Keypoints(torch.zeros(1, 1, 2, requires_grad=True), None)
    loss = keypoint_prior_loss(still, torch.zeros_like(changed), 0.02)
    loss.backward()
    assert loss.item() == 0
    assert still.value.grad.abs().max() == 0


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    value = torch.rand(2, 3, 2, dtype=torch.float64, generator=generator) * 2 - 1
    changed = torch.rand(2, 1, 4, 5, generator=generator) > 0.6

    def loss(points):
        return keypoint_prior_loss(Keypoints(points, None), changed, 0.05)

    assert torch.autograd.gradcheck(loss, value.requires_grad_())


def test_stays_float32_under_autocast():
    points, changed = Keypoints(torch.rand(1, 4, 2), None), torch.rand(1, 1, 4, 4) > 0.5
    plain = keypoint_prior_loss(points, changed, 0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(keypoint_prior_loss(points, changed, 0.02), plain)


def test_keypoints_on_what_moves_cost_less_than_those_in_one_place():
    changed = only(0, 0, 9) | only(8, 8, 9)
    apart = keypoint_prior_loss(keypoints((-1.0, -1.0), (1.0, 1.0)), changed, 0.02)
    together = keypoint_prior_loss(keypoints((0.0, 0.0), (0.0, 0.0)), changed, 0.02)
    assert apart < together - 1


def test_both_frames_and_the_small_grid_of_changes():
    """At 64 x 64 the pixels are 32 x 32: a change of one whole cell, seen by both keypoints."""
    inputs = noise_inputs(tiny_config(*KINDS["fomm"]), batch=1)
    source = torch.zeros(1, 3, 64, 64)
    driving = source.clone()
    driving[..., :2, 62:] = 0.3  # its middle is at (1, -1) of the grid
    inputs = inputs._replace(source=source, driving=driving)
    motion = MotionMaps(torch.zeros(1, 4, 4, 2), None, None)
    output = MotionOutput(keypoints((0.0, -1.0)), keypoints((1.0, 1.0)), motion, driving)
    prior = KeypointPriorConfig(weight=10.0, change_threshold=0.2)
    term = keypoint_prior_terms(prior, inputs, output)["keypoint_prior"]
    share = 1 / (0.01 * 32 * 32)  # one of 1024 cells, a tenth of 1%
    assert term.value.item() == pytest.approx(share * (1 + 4))
    assert term.weighted.item() == pytest.approx(10 * share * (1 + 4))
    above = prior.model_copy(update={"change_threshold": 0.31})
    assert keypoint_prior_terms(above, inputs, output)["keypoint_prior"].value.item() == 0
    assert keypoint_prior_terms(KeypointPriorConfig(), inputs, output) == {}


@pytest.mark.parametrize("kind", ["fomm", "monkey_net", "tpsmm"])
def test_trains_the_detector_of_every_kind_alone(kind, monkeypatch):
    use_small_resnets(monkeypatch)
    config = tiny_config(*KINDS[kind], "motion.prior.weight=3")
    model = Model(config).train()
    inputs = noise_inputs(config, 2)
    branch = model.motion
    branch.loss_terms(inputs, branch(inputs))["keypoint_prior"].weighted.backward()
    reached = {
        name
        for name, network in branch.named_children()
        if any(p.grad is not None and p.grad.any() for p in network.parameters())
    }
    assert reached == {"keypoint_detector"}


@pytest.mark.parametrize("kind", ["fomm", "monkey_net", "tpsmm"])
def test_keypoints_learn_alone_at_first(kind, monkeypatch):
    """Until its epoch no other network gets a gradient, and a discriminator has none to give."""
    use_small_resnets(monkeypatch)
    prior = ("motion.prior.weight=3", "motion.prior.alone_until_epoch=2")
    config = tiny_config(*KINDS[kind], *prior)
    model = Model(config).train()
    terms, gradient = {}, {}
    for epoch in (1.9, 2.0):
        inputs = at_epoch(noise_inputs(config, 2), epoch)
        output = model.motion(inputs)
        terms[epoch] = model.motion.loss_terms(inputs, output).keys()
        gradient[epoch] = output.prediction.requires_grad
    assert gradient == {1.9: False, 2.0: True}
    assert (
        {"keypoint_prior"}
        <= terms[1.9]
        <= {*("keypoint_prior", "equivariance_value", "equivariance_jacobian", "background")}
    )
    assert terms[1.9] < terms[2.0]
