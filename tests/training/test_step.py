"""The training step: golden losses, gradients of parts and of branches, late starts, the jitter."""

import weakref

import pytest
import torch
from torch.testing import assert_close

from branches.branch import StepContext
from branches.model import Model
from common.batch_random import BatchRandom
from datasets.augmentation import jitter_colors, resize_and_crop
from tests.helpers.factories import WaitsForTheDevice, noise_batch, tiny_config, tiny_perceptual
from training import step as training_step
from training.adversary import build_adversary
from training.optimization import Optimizer
from training.step import PreparedFrames, prepare_frames, train_step


class DoubleDraws(BatchRandom):
    def _own_rows(self, drawn):
        return super()._own_rows(drawn).double()


class Run:
    """A tiny model with everything that a training step needs.

    double: compute in float64, so that losses are the same on every processor.
    """

    def __init__(self, *overrides, double=False):
        self.double = double
        self.config = tiny_config(*overrides)
        self.model = Model(self.config).train()
        self.adversary = build_adversary(self.config)
        self.perceptual = tiny_perceptual(self.config)
        if double:
            for network in (self.model, self.adversary, self.perceptual):
                if network is not None:
                    network.double()
        self.optimizer = Optimizer(self.model, self.adversary, self.config, torch.device("cpu"))
        self.batch = noise_batch(self.config)
        kind = DoubleDraws if double else BatchRandom
        self.draws = kind(torch.Generator().manual_seed(0))

    def step(self, epoch=0, host_random=0.0, waiting=()):
        with pytest.MonkeyPatch.context() as patch:
            if self.double:
                patch.setattr(training_step, "prepare_frames", prepare_frames_in_double)
            return train_step(
                self.model,
                self.adversary,
                self.optimizer,
                self.perceptual,
                self.batch,
                StepContext(epoch, self.draws, host_random, frozenset(waiting)),
                self.config,
            )


def prepare_frames_in_double(*arguments):
    return PreparedFrames(*(frames.double() for frames in prepare_frames(*arguments)))


MOTION_ALONE = ("masks=null", "background=null", "discriminator=null")
# At the usual threshold nearly all of the noise in these frames changes or is enclosed by changes,
# and the prior of the masks has nothing left to learn.
OTHERS_ALONE = ("discriminator=null", "masks.prior.change_threshold=0.6")

# Unweighted loss terms of three steps on a fixed batch, in float64: those of the motion branch when
# it is trained alone, and those of the other branches in a joint run.
GOLDEN_MOTION = {
    "unweighted/motion/perceptual": [2.903405, 2.780897, 2.683364],
    "unweighted/motion/equivariance_value": [0.1370649, 0.1446692, 0.2020655],
    "unweighted/motion/equivariance_jacobian": [0.08830193, 0.05449004, 0.09100251],
}
GOLDEN_OTHERS = {
    "unweighted/masks/low_perceptual": [2.804029, 2.692556, 2.559737],
    "unweighted/masks/high_perceptual": [2.798741, 2.991113, 2.646981],
    "unweighted/masks/refinement": [0.5037798, 0.3969946, 0.3066126],
    "unweighted/masks/prior": [2.906195, 1.363095, 1.003272],
    "unweighted/background/base_perceptual": [2.833457, 2.72747, 2.628606],
    "unweighted/background/refine_perceptual": [2.867788, 2.718776, 2.589976],
}


def losses(run, names, num_steps=3):
    steps = [run.step().scalars for _ in range(num_steps)]
    return {name: [step[name].item() for step in steps] for name in names}


# The same with a discriminator, in steps that mix images. The discriminator's own terms have their
# weights, which are 1.
GOLDEN_ADVERSARIAL = {
    "unweighted/adversarial/encoder": [79.47453, 54.70322, 38.91193],
    "unweighted/adversarial/decoder": [0.7402784, 0.1203269, 0.0908858],
    "unweighted/adversarial/encoder_features": [0.4800848, 0.4508038, 0.4525816],
    "unweighted/adversarial/decoder_features": [0.5333284, 0.4677644, 0.4605771],
    "discriminator_loss/encoder": [140.2345, 98.76479, 71.44897],
    "discriminator_loss/decoder": [3.77623, 1.642007, 0.8717311],
    "discriminator_loss/consistency": [0.01427841, 0.007672451, 0.004705768],
}


@pytest.mark.parametrize(
    ("golden", "overrides"),
    [
        (GOLDEN_MOTION, MOTION_ALONE),
        (GOLDEN_OTHERS, OTHERS_ALONE),
        (GOLDEN_ADVERSARIAL, ()),
    ],
    ids=["motion", "others", "adversarial"],
)
def test_golden_losses(golden, overrides):
    """No change may alter the numbers silently; if it must, store new ones and say why."""
    found = losses(Run("train.learning_rate=2e-3", *overrides, double=True), golden)
    assert found == {name: pytest.approx(values, rel=2e-5) for name, values in golden.items()}


def test_total_is_the_sum_of_the_weighted_terms():
    scalars = Run("masks.prior.weight=3").step().scalars
    weighted = [v for n, v in scalars.items() if n.startswith("loss/") and n != "loss/total"]
    assert_close(scalars["loss/total"], torch.stack(weighted).sum())
    assert_close(scalars["loss/motion/perceptual"], 10 * scalars["unweighted/motion/perceptual"])
    assert_close(scalars["loss/masks/prior"], 3 * scalars["unweighted/masks/prior"])
    assert {"motion/keypoint_spread", "masks/mask_mean", "gradient_norm"} <= scalars.keys()
    assert not any(value.requires_grad for value in scalars.values())


def test_smallest_determinant_is_that_of_all_parts():
    whole, parts = Run(), Run("train.micro_batch=1")
    for run in (whole, parts):
        detector = run.model.motion.keypoint_detector
        torch.nn.init.normal_(
            detector.jacobian.weight, std=0.1, generator=torch.Generator().manual_seed(0)
        )
        run.model.eval()  # so that BatchNorm does not mix samples
    name = "motion/smallest_determinant"
    expected = whole.step().scalars[name]
    assert 0 < expected < 1
    assert_close(parts.step().scalars[name], expected, rtol=1e-4, atol=0)


def test_same_run_twice_gives_the_same_numbers():
    first, second = Run(), Run()
    for _ in range(2):
        a, b = first.step().scalars, second.step().scalars
        assert all(torch.equal(a[name], b[name]) for name in a)


# Other branches in the step would change the random numbers of a branch, so nothing is random here.
CERTAIN = (
    "motion.losses.equivariance_value=0",
    "motion.losses.equivariance_jacobian=0",
    "masks.perturbation.scales=[1, 1]",
    "masks.perturbation.noise=0",
    "discriminator.cut.kind=none",
)


def gradients(run):
    """The gradients of one step by parameter, before the update, and the scalars of the step."""
    players = torch.nn.ModuleList(p for p in (run.model, run.adversary) if p is not None)
    names = [name for name, _ in players.named_parameters()]
    seen = []
    run.optimizer.algorithm.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.clone() for p in players.parameters())
    )
    scalars = run.step().scalars
    return dict(zip(names, seen, strict=True)), scalars


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_give_the_gradient_of_the_whole(size):
    # Without the mask prior, which weighs changed pixels by their number in the part, and without
    # spectral norm, which moves with every part. The random numbers are the same.
    overrides = ("masks.prior.weight=0", "discriminator.spectral_norm=false")
    runs = [Run(*overrides, *parts, double=True) for parts in ((), (f"train.micro_batch={size}",))]
    for run in runs:
        run.model.eval()  # so that BatchNorm does not mix samples
    (whole, whole_scalars), (parts, parts_scalars) = map(gradients, runs)
    reached = 0
    for name, gradient in whole.items():
        assert_close(parts[name], gradient, atol=1e-11, rtol=1e-9)
        reached += bool(gradient.any())
    assert reached > len(whole) / 2
    assert_close(whole_scalars["loss/total"], parts_scalars["loss/total"])
    for name in ("gradient_norm", "discriminator/gradient_norm", "discriminator_loss/total"):
        assert_close(whole_scalars[name], parts_scalars[name])


@pytest.mark.parametrize(
    "others",
    [
        ("masks=null", "background=null"),
        ("motion=null", "discriminator=null", "background=null"),
        (
            "motion=null",
            "discriminator=null",
        ),
    ],
    ids=["motion", "masks", "masks-background"],
)
def test_joint_gradient_is_that_of_each_branch_alone(others):
    joint, alone = Run(*CERTAIN, double=True), Run(*CERTAIN, *others, double=True)
    for name, network in alone.model.networks.items():
        network.load_state_dict(joint.model.networks[name].state_dict())
    expected, _ = gradients(joint)
    found, _ = gradients(alone)
    assert found
    for name, gradient in found.items():
        assert_close(gradient, expected[name], atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_steps_in_half_precision_stay_near_float32(precision):
    plain, half = Run().step().scalars, Run(f"train.precision={precision}").step().scalars
    for name in ("loss/total", "discriminator_loss/total"):
        assert_close(half[name], plain[name], rtol=0.05, atol=0)
        assert half[name].dtype == torch.float32


def test_steps_reduce_the_losses():
    run = Run("train.learning_rate=2e-3", *OTHERS_ALONE)
    names = ["unweighted/motion/perceptual", *GOLDEN_OTHERS]
    for name, values in losses(run, names, num_steps=30).items():
        assert values[-1] < 0.8 * values[0], name


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.precision=bf16", "background.foreign_probability=0.5"],
        ["train.micro_batch=2", "train.clip_norm=1"],
        ["data.augmentation.resize=[0.9, 1.1]", "train.clip_window=2", "train.clip_ratio=1.01"],
    ],
)
def test_a_step_does_not_wait_for_the_device(overrides):
    run = Run(*overrides)
    run.step()  # fills caches
    with WaitsForTheDevice() as waits:
        run.step()
    assert waits.found == []
    with WaitsForTheDevice() as waits:  # the check itself works
        torch.ones(2)[torch.ones(2).bool()].sum().item()
    assert len(waits.found) >= 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_step_on_cuda_does_not_wait_for_the_device():
    device = torch.device("cuda")
    config = tiny_config("train.precision=bf16")
    model, adversary = Model(config).train().to(device), build_adversary(config).to(device)
    perceptual, batch = tiny_perceptual(config).to(device), noise_batch(config).to(device)
    optimizer = Optimizer(model, adversary, config, device)
    context = StepContext(0, BatchRandom(torch.Generator(device).manual_seed(0)), 0.0)
    train_step(model, adversary, optimizer, perceptual, batch, context, config)  # fills caches
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(model, adversary, optimizer, perceptual, batch, context, config)
    finally:
        torch.cuda.set_sync_debug_mode("default")


class _Sentinel(torch.autograd.Function):
    """The identity, whose saved value for the backward pass shows how long the graph lives."""

    @staticmethod
    def forward(ctx, x, alive):
        ctx.kept = _Kept()
        alive.add(ctx.kept)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class _Kept:
    """A value that lives as long as the graph that holds it."""


def test_no_graph_outlives_its_part():
    run = Run("train.micro_batch=1")
    alive, seen = weakref.WeakSet(), []
    run.adversary.discriminator.register_forward_pre_hook(
        lambda _module, inputs: (_Sentinel.apply(inputs[0].requires_grad_(), alive),)
    )
    run.model.motion.keypoint_detector.register_forward_pre_hook(lambda *_: seen.append(len(alive)))
    run.step()
    assert not alive
    assert max(seen) == 0  # when the next part begins, no earlier graph is left


# Parts that start later


def test_later_starts():
    """Before its start nothing of a network changes, not even the statistics of its BatchNorm."""
    run = Run()
    started = {
        ("masks.refinement", "background"): set(),
        ("background",): {"refinement"},
        (): {"refinement", "bg_base", "bg_refine"},
    }
    for waiting, expected in started.items():
        before = {
            name: {key: tensor.clone() for key, tensor in state.items()}
            for name, state in run.model.state().items()
        }
        scalars = run.step(waiting=waiting).scalars
        changed = {
            name
            for name, state in run.model.state().items()
            if any(not torch.equal(tensor, before[name][key]) for key, tensor in state.items())
        }
        late = {"refinement", "bg_base", "bg_refine"}
        assert changed & late == expected
        assert changed - late == set(run.model.networks) - late
        assert ("loss/masks/refinement" in scalars) == ("masks.refinement" not in waiting)
        assert ("loss/background/base_perceptual" in scalars) == ("background" not in waiting)
        assert ("loss/background/refine_perceptual" in scalars) == ("background" not in waiting)
        assert "background/foreground_share" in scalars


# The colour jitter


def test_source_and_target_share_a_jitter_and_the_frame_for_masks_has_its_own():
    batch = noise_batch(tiny_config())
    still = batch._replace(frames=batch.frames[:, 1:].expand(-1, 2, -1, -1, -1))
    source, driving, recolored = prepare_frames(still, channels_last=False)
    assert torch.equal(driving, source)
    assert (recolored - driving).abs().flatten(1).amax(
        dim=1
    ).min() > 0.02  # they differ in every sample
    batch.color_factors[:, 1] = torch.tensor([1.0, 1.0, 1.0, 0.0])  # factors that change nothing
    _, driving, recolored = prepare_frames(batch, channels_last=True)
    assert_close(recolored, batch.frames[:, 1].float() / 255, atol=1e-5, rtol=0)
    assert not torch.allclose(driving, recolored, atol=0.02)
    assert recolored.is_contiguous(memory_format=torch.channels_last)


def test_all_frames_of_a_pair_are_resized_alike_before_the_jitter():
    batch = noise_batch(tiny_config("data.augmentation.resize=[1.5, 2]"))
    still = batch._replace(frames=batch.frames[:, 1:].expand(-1, 2, -1, -1, -1))
    frames = prepare_frames(still, channels_last=False)
    assert torch.equal(frames.source, frames.driving)
    plain = resize_and_crop(still.frames.float() / 255, still.placement)
    assert (plain - still.frames / 255).abs().max() > 0.1
    expected = jitter_colors(plain, batch.color_factors[:, 0], batch.color_order[:, 0])
    assert_close(frames.driving, expected[:, 1])
    expected = jitter_colors(plain, batch.color_factors[:, 1], batch.color_order[:, 1])
    assert_close(frames.recolored_driving, expected[:, 1])
