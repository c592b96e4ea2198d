"""The motion branch of kind tpsmm: golden losses, what they train, dropout, start of background."""

import pytest
import torch
from torch.testing import assert_close

from branches.branch import StepContext, StepInputs
from branches.motion.tpsmm import TpsmmBranch
from common.batch_random import BatchRandom
from configs.motion.tpsmm import TpsmmConfig
from losses import Perceptual
from modules.vgg import VGGFeatures
from tests.branches.motion.test_kinds import build
from tests.helpers.factories import at_epoch, before_start
from tests.helpers.kinds import use_small_resnets

PARTS = {  # as published, by our names
    "keypoint_detector": "kp_detector",
    "dense_motion": "dense_motion_network",
    "inpainting": "inpainting_network",
    "background_motion": "bg_predictor",
}


@pytest.fixture(scope="module")
def golden(golden_tpsmm):
    return golden_tpsmm


def weights(golden, part):
    """The tensors of a published part without the blur kernel, which follows from the scale."""
    return {n: tensor for n, tensor in golden.weights(part).items() if n != "down.weight"}


@pytest.fixture(scope="module")
def published(golden):
    """The branch with the published sizes and weights, and its loss terms for the golden frames."""
    params = golden.params
    dense, generator = params["dense_motion_params"], params["generator_params"]
    branch = TpsmmBranch(
        TpsmmConfig.model_validate(
            {
                "kind": "tpsmm",
                "keypoint_detector": {"num_plates": params["common_params"]["num_tps"]},
                "dense_motion": {
                    "width": dense["block_expansion"],
                    "max_width": dense["max_features"],
                    "num_blocks": dense["num_blocks"],
                    "scale": dense["scale_factor"],
                },
                "inpainting": {
                    "width": generator["block_expansion"],
                    "max_width": generator["max_features"],
                    "num_down_blocks": generator["num_down_blocks"],
                },
                "losses": {"perceptual": {}, "pixel": 1.0},
            }
        )
    )
    for name, network in branch.named_children():
        network.load_state_dict(weights(golden, PARTS[name]))
    context = StepContext(0.0, BatchRandom(torch.Generator().manual_seed(0)), 0.0)
    perceptual = Perceptual(VGGFeatures("vgg19", []), [])
    frames = (golden["source"], golden["driving"], golden["driving"])
    inputs = StepInputs(*frames, perceptual, [], context)
    return branch, branch.loss_terms(inputs, branch.eval()(inputs))


@pytest.mark.parametrize(
    ("name", "stored"),
    [("pixel", "loss_pixel"), ("warp", "loss_warp"), ("background", "loss_background")],
)
def test_losses_as_published_and_what_they_train(golden, published, name, stored):
    """The stored gradients are zero for the networks that a loss must not reach."""
    branch, terms = published
    assert_close(terms[name].weighted.detach(), golden[stored], rtol=1e-4, atol=1e-6)
    for network, part in PARTS.items():
        found = torch.autograd.grad(
            terms[name].weighted,
            list(getattr(branch, network).parameters()),
            retain_graph=True,
            materialize_grads=True,
        )
        norm = torch.stack([gradient.norm() for gradient in found]).norm()
        assert_close(norm, golden[f"grad_norm/{stored}/{part}"], rtol=0.01, atol=0.0)


def test_equivariance_trains_the_detector_alone(published):
    branch, terms = published
    loss = terms["equivariance_value"].weighted
    for name, network in branch.named_children():
        found = torch.autograd.grad(
            loss, list(network.parameters()), retain_graph=True, allow_unused=True
        )
        reached = [gradient is not None and bool(gradient.any()) for gradient in found]
        assert any(reached) == (name == "keypoint_detector")


@pytest.fixture
def small_resnets(monkeypatch):
    use_small_resnets(monkeypatch)


DROPOUT = "motion.dense_motion.dropout={start: 0.2, highest: 0.6, until_epoch: 3}"


def kept_by(branch, inputs):
    """The plates that the dense motion was told to keep, in a step."""
    seen = []
    hook = branch.dense_motion.register_forward_pre_hook(lambda _, given: seen.append(given[-1]))
    branch(inputs)
    hook.remove()
    (kept,) = seen
    return kept


def generator():
    return torch.Generator().manual_seed(3)


def with_random(inputs, random):
    return inputs._replace(context=inputs.context._replace(random=random))


def test_dropout_draws_from_the_random_numbers_of_the_step(small_resnets):
    """The probability in epoch 2 is min(2 / 10 * .6 + .2, .6) = .32."""
    branch, inputs = build("tpsmm", DROPOUT, "motion.keypoint_detector.num_plates=40", batch=2)
    inputs = with_random(at_epoch(inputs, 2.9), BatchRandom(generator()))
    expected = torch.rand(2, 40, generator=generator()) < 1 - 0.32
    kept = kept_by(branch, inputs)
    assert torch.equal(kept, expected)
    assert 0 < kept.sum() < kept.numel()


def test_parts_of_a_batch_drop_the_plates_of_the_whole(small_resnets):
    branch, inputs = build("tpsmm", DROPOUT, batch=4)
    whole = kept_by(branch, with_random(inputs, BatchRandom(generator())))
    parts = []
    for i, random in enumerate(BatchRandom(generator()).split(2)):
        part = inputs._replace(
            source=inputs.source[2 * i : 2 * i + 2], driving=inputs.driving[2 * i : 2 * i + 2]
        )
        parts.append(kept_by(branch, with_random(part, random)))
    assert torch.equal(torch.cat(parts), whole)


def test_dropout_ends_at_its_epoch_and_is_for_training_alone(small_resnets):
    branch, inputs = build("tpsmm", DROPOUT)
    before = inputs.context.random.generator.get_state()
    assert kept_by(branch, at_epoch(inputs, 3.0)) is None
    assert kept_by(branch.eval(), at_epoch(inputs, 0.0)) is None
    assert torch.equal(inputs.context.random.generator.get_state(), before)  # nothing was drawn
    assert kept_by(branch.train(), at_epoch(inputs, 2.99)) is not None


def test_background_motion_waits_for_its_start(small_resnets):
    branch, inputs = build("tpsmm")
    early = before_start(inputs, "motion.background_motion")
    calls = []
    branch.background_motion.register_forward_pre_hook(lambda *_: calls.append(1))
    output = branch(early)
    terms = branch.loss_terms(early, output)
    assert "background" not in terms
    assert not calls
    torch.nn.init.normal_(branch.background_motion.bg_encoder.fc.weight, std=0.2)
    later = branch(inputs)
    assert "background" in branch.loss_terms(inputs, later)
    assert len(calls) == 2  # each way
    assert not torch.equal(later.motion.deformation, output.motion.deformation)
