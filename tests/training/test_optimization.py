"""The optimizer: bad steps, learning rates, clipping, moving average, saved state."""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from branches.model import Model
from tests.helpers.factories import WaitsForTheDevice, joint_terms, noise_inputs, tiny_config
from tests.helpers.kinds import KINDS, use_small_resnets
from training.optimization import MovingAverage, Optimizer, RecentNorms, base_learning_rates
from training.step import total

CPU = torch.device("cpu")
NETWORKS = [
    "keypoint_detector", "dense_motion", "generator",
    "mask_generator", "refinement", "low_resolution", "high_resolution",
    "bg_base", "bg_refine",
]  # fmt: skip


class Run:
    """A tiny model and its optimizer, which take steps on fixed frames."""

    def __init__(self, *overrides):
        self.config = tiny_config(*overrides)
        self.model = Model(self.config).train()
        self.inputs = noise_inputs(self.config)
        self.optimizer = Optimizer(self.model, None, self.config, CPU)

    def step(self, factor=1.0, source=None):
        inputs = self.inputs if source is None else self.inputs._replace(source=source)
        with self.optimizer.guarded_buffers():
            loss = factor * total(joint_terms(self.model, inputs)[0])
            self.optimizer.backward({"model": loss})
            return self.optimizer.step(loss)["model"]

    def snapshot(self):
        """Everything that a bad step must not change."""
        tensors = dict(self.model.named_parameters())
        tensors |= {n: b for n, b in self.model.named_buffers() if b.is_floating_point()}
        for i, state in self.optimizer.algorithm.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": tensor for name, tensor in state.items()}
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


SGD = "train.optimizer=sgd"


@pytest.mark.parametrize("overrides", [(), ("train.clip_norm=1",), (SGD, "train.weight_decay=1")])
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_bad_step_leaves_everything_as_it_was(factor, overrides):
    run = Run(*overrides)
    run.step()
    before = run.snapshot()
    run.step(factor)
    assert equal(run.snapshot(), before)
    assert run.optimizer.bad_steps.item() == 1
    run.step()
    after = run.snapshot()
    assert not equal(after, before)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert run.optimizer.bad_steps.item() == 1


def test_non_finite_activations_do_not_stay_in_the_batch_norm_statistics():
    run = Run()
    run.step()
    before = run.snapshot()
    run.step(source=torch.full_like(run.inputs.source, math.nan))
    assert equal(run.snapshot(), before)
    assert run.optimizer.bad_steps.item() == 1


def test_gradient_that_overflows_under_a_finite_loss_is_bad():
    run = Run()
    run.step()
    before = run.snapshot()
    weight = run.model.motion.generator.final.weight
    with run.optimizer.guarded_buffers():
        loss = (weight * 0).sqrt().sum()  # the value is 0, its derivative infinite
        run.optimizer.backward({"model": loss})
        norm = run.optimizer.step(loss)["model"]
    assert loss.item() == 0
    assert not torch.isfinite(norm)
    assert equal(run.snapshot(), before)
    assert run.optimizer.bad_steps.item() == 1


def test_first_step_may_be_bad():
    run = Run()
    run.step(math.nan)
    run.step()
    assert {float(state["step"]) for state in run.optimizer.algorithm.state.values()} == {1.0}
    assert all(torch.isfinite(tensor).all() for tensor in run.snapshot().values())


def test_first_step_of_sgd_may_be_bad():
    """It leaves the momentum at 0, not at what was in memory."""
    run, other = Run(SGD), Run(SGD)
    before = run.snapshot()
    run.step(math.nan)
    assert equal(run.snapshot(), before)
    moments = [tensor for name, tensor in before.items() if name.endswith("momentum_buffer")]
    assert len(moments) == len(list(run.model.parameters()))
    assert not any(tensor.any() for tensor in moments)
    run.inputs.context.random.generator.set_state(other.inputs.context.random.generator.get_state())
    run.step()
    other.step()
    assert equal(run.snapshot(), other.snapshot())


@pytest.mark.parametrize("algorithm", ["adam", "sgd"])
def test_fp16_overflow_lowers_the_loss_scale_and_is_no_bad_step(algorithm):
    run = Run("train.precision=fp16", f"train.optimizer={algorithm}")
    run.step()
    before, scale = run.snapshot(), run.optimizer.scaler.get_scale()
    run.step(math.inf)
    assert equal(run.snapshot(), before)
    assert run.optimizer.scaler.get_scale() == scale / 2
    assert run.optimizer.bad_steps.item() == 0
    run.step()
    assert not equal(run.snapshot(), before)


def test_fp16_overflow_at_the_smallest_loss_scale_is_a_bad_step():
    run = Run("train.precision=fp16")
    for _ in range(17):  # the scale 2^16 is 1 after 16 halvings
        run.step(math.nan)
    assert run.optimizer.bad_steps.item() == 1


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_infinite_loss_with_finite_gradients_is_a_bad_step(precision):
    run = Run(f"train.precision={precision}")
    run.step()
    before = run.snapshot()
    loss = sum(p.sum() for p in run.model.parameters())
    with run.optimizer.guarded_buffers():
        run.optimizer.backward({"model": loss})
        assert torch.isfinite(run.optimizer.step(loss.detach() + math.inf)["model"])
    assert equal(run.snapshot(), before)
    assert run.optimizer.bad_steps.item() == 1


def test_bad_steps_in_a_row_are_counted_apart():
    run = Run()
    for factor in (math.nan, math.nan, 1.0, math.nan):
        run.step(factor)
    assert run.optimizer.bad_steps.item() == 3
    assert run.optimizer.bad_in_a_row.item() == 1


def test_settings_of_the_config_win_over_saved_ones():
    saved = Run().optimizer.state()
    changes = ("train.betas=[0.9, 0.99]", "train.weight_decay=0.1", "train.precision=fp16")
    other = Run(*changes).optimizer
    other.load_state(saved)
    groups = other.algorithm.param_groups
    assert all((group["betas"], group["weight_decay"]) == ((0.9, 0.99), 0.1) for group in groups)
    other = Run(SGD, "train.momentum=0.5", "train.weight_decay=0.1").optimizer
    other.load_state(Run(SGD).optimizer.state())
    groups = other.algorithm.param_groups
    assert all((group["momentum"], group["weight_decay"]) == (0.5, 0.1) for group in groups)


def test_momentum_that_a_resumed_run_gets_starts_at_zero():
    before, run = Run(SGD, "train.momentum=0"), Run(SGD)
    before.step()
    run.optimizer.load_state(before.optimizer.state())
    for state in run.optimizer.algorithm.state.values():
        assert not state["momentum_buffer"].any()


def test_norm_is_that_of_all_gradients_before_clipping():
    run = Run("train.clip_norm=0.001")
    seen = []
    run.optimizer.algorithm.register_step_pre_hook(
        lambda adam, *_: seen.extend(p.grad.clone() for p in run.model.parameters())
    )
    norm = run.step()
    clipped = torch.stack([gradient.norm() for gradient in seen]).norm()
    assert clipped.item() == pytest.approx(0.001, rel=1e-3)
    unclipped = Run()
    unclipped.optimizer.algorithm.register_step_pre_hook(
        lambda adam, *_: seen.extend(p.grad.clone() for p in unclipped.model.parameters())
    )
    seen.clear()
    assert_close(unclipped.step(), norm)
    assert_close(torch.stack([gradient.norm() for gradient in seen]).norm(), norm)
    assert all(p.grad is None for p in unclipped.model.parameters())


def seen_norms(run):
    """A list of the norms of the gradients that Adam gets; each step adds one."""
    seen = []
    parameters = list(run.model.parameters())
    run.optimizer.algorithm.register_step_pre_hook(
        lambda *_: seen.append(torch.stack([p.grad.norm() for p in parameters]).norm().item())
    )
    return seen


SPIKES = ("train.clip_ratio=10", "train.clip_window=6")


def test_median_of_recent_norms_by_hand():
    recent, good = RecentNorms(5, CPU), torch.tensor(False)
    medians = []
    for norm in (7.0, 3.0, 5.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0):
        recent.add(torch.tensor(norm), good)
        medians.append(recent.median().item())
    # No median of 1 norm yet; then of 2, 3, 4 and 5 norms, the lower one for an even number; later
    # of the last 5.
    assert medians == [math.inf, 3, 5, 3, 3, 1, 1, 1, math.inf]
    kept = recent.norms
    recent.add(torch.tensor(math.nan), ~good)
    assert torch.equal(recent.norms, kept)


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_gradient_far_above_the_running_median_is_clipped_and_counted(precision):
    # fp16 can hold 1000 times this; the loss scale must not count in the norms.
    factor = 0.01 if precision == "fp16" else 1.0
    run = Run(*SPIKES, f"train.precision={precision}")
    seen = seen_norms(run)
    norms = [run.step(factor).item() for _ in range(4)]
    assert seen == pytest.approx(norms, rel=1e-4)
    assert run.optimizer.clipped_steps.item() == 0
    spike = run.step(1000 * factor).item()
    assert spike > 100 * max(norms)
    assert seen[-1] == pytest.approx(10 * sorted(norms)[1], rel=1e-3)
    assert run.optimizer.clipped_steps.item() == 1
    assert run.optimizer.bad_steps.item() == 0
    # One spike among five norms hardly changes the median.
    run.step(factor)
    assert run.optimizer.clipped_steps.item() == 1


def set_gradients(run, largest):
    """Give each parameter a gradient of the same value in every element: that of its network in
    `largest`, or 1.
    """
    for name, network in run.model.networks.items():
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, largest.get(name, 1.0))


def gradients_in_the_step(run):
    """A dict that each step fills with the gradients that the algorithm gets, by network."""
    seen = {}

    def note(*_):
        for name, network in run.optimizer.networks.items():
            gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
            if gradients:
                seen[name] = torch.cat(gradients)

    run.optimizer.algorithm.register_step_pre_hook(note)
    return seen


@pytest.fixture
def small_resnets(monkeypatch):
    use_small_resnets(monkeypatch)


def test_each_network_is_clipped_to_its_own_infinity_norm(small_resnets):
    """By hand: 40 becomes 10, and what is beside it in the network a quarter; 10 and less stay."""
    run = Run(*KINDS["tpsmm"], "train.clip_ratio=null")
    seen = gradients_in_the_step(run)
    set_gradients(run, {"keypoint_detector": 4.0, "dense_motion": 10.0, "background_motion": -25.0})
    run.model.motion.keypoint_detector.fg_encoder.fc.bias.grad[3] = -40.0
    run.optimizer.step(torch.tensor(1.0))
    detector = seen["keypoint_detector"]
    assert detector.min().item() == pytest.approx(-10)
    assert sorted(set(detector.tolist()))[1:] == pytest.approx([1])
    assert_close(seen["dense_motion"], torch.full_like(seen["dense_motion"], 10.0))
    assert_close(seen["background_motion"], torch.full_like(seen["background_motion"], -10.0))
    assert set(seen["inpainting"].tolist()) == {1.0}  # it has no limit


def test_the_player_is_clipped_after_its_networks(small_resnets):
    run = Run(*KINDS["tpsmm"], "train.clip_norm=3", "train.clip_ratio=null")
    seen = gradients_in_the_step(run)
    largest = {"keypoint_detector": 1000.0, "inpainting": 0.0, "dense_motion": 0.0}
    set_gradients(run, largest | {"background_motion": 0.0})
    norm = run.optimizer.step(torch.tensor(1.0))["model"]
    count = seen["keypoint_detector"].numel()
    assert norm.item() == pytest.approx(10 * math.sqrt(count), rel=1e-4)
    assert seen["keypoint_detector"].norm().item() == pytest.approx(3, rel=1e-4)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stays_so_in_a_clipped_network(small_resnets, wrong):
    run = Run(*KINDS["tpsmm"])
    before = run.snapshot()
    set_gradients(run, {})
    run.model.motion.keypoint_detector.fg_encoder.fc.bias.grad[0] = wrong
    run.optimizer.step(torch.tensor(1.0))
    assert run.optimizer.bad_steps.item() == 1
    after = run.snapshot()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_networks_without_gradients_are_left_out(small_resnets):
    """Those that have not started, or all where the key is null."""
    run = Run(*KINDS["tpsmm"], "train.clip_ratio=null")
    seen = gradients_in_the_step(run)
    set_gradients(run, dict.fromkeys(run.model.networks, 20.0))
    for parameter in run.model.motion.background_motion.parameters():
        parameter.grad = None
    loss = torch.tensor(1.0)
    with WaitsForTheDevice() as waits:
        run.optimizer.step(loss)
    assert waits.found == []
    assert "background_motion" not in seen
    assert seen["keypoint_detector"].max().item() == pytest.approx(10)
    run = Run(*KINDS["tpsmm"], "motion.clip_infinity_norm=null", "train.clip_ratio=null")
    seen = gradients_in_the_step(run)
    set_gradients(run, dict.fromkeys(run.model.networks, 20.0))
    run.optimizer.step(torch.tensor(1.0))
    assert all(set(gradients.tolist()) == {20.0} for gradients in seen.values())


def test_first_gradients_are_not_clipped():
    """Nothing is clipped until half of the window is filled."""
    run = Run(*SPIKES)
    seen = seen_norms(run)
    assert [run.step(1000.0**i).item() for i in range(3)] == pytest.approx(seen, rel=1e-4)
    assert run.optimizer.clipped_steps.item() == 0


def test_bad_step_is_neither_clipped_nor_remembered():
    run = Run(*SPIKES)
    for _ in range(3):
        run.step()
    before, kept = run.snapshot(), run.optimizer.recent_norms["model"].norms
    for factor in (math.nan, math.inf):
        run.step(factor)
    assert equal(run.snapshot(), before)
    assert torch.equal(run.optimizer.recent_norms["model"].norms, kept)
    assert run.optimizer.clipped_steps.item() == 0
    assert run.optimizer.bad_steps.item() == 2


def test_training_goes_on_after_a_spike():
    """Without clipping, the square of the spike stays in Adam's second moment, and weights hardly
    move any more.
    """
    moved = {}
    for ratio in ("10", "null"):
        run = Run("train.clip_window=6", f"train.clip_ratio={ratio}", "train.betas=[0.0, 0.999]")
        for factor in (1, 1, 1, 1, 1e5, 1):
            before = [p.detach().clone() for p in run.model.parameters()]
            run.step(factor)
        parameters = run.model.parameters()
        changes = [(p - old).abs().sum() for p, old in zip(parameters, before, strict=True)]
        moved[ratio] = torch.stack(changes).sum().item()
    assert moved["null"] < 0.01 * moved["10"]


def test_continued_run_clips_as_an_uninterrupted_one():
    whole, resumed, forgetful = Run(*SPIKES), Run(*SPIKES), Run(*SPIKES)
    for _ in range(4):
        whole.step()
    resumed.optimizer.load_state(copy.deepcopy(whole.optimizer.state()))
    older = copy.deepcopy(whole.optimizer.state())
    del older["recent_norms"], older["clipped_steps"]
    forgetful.optimizer.load_state(older)
    for run in (resumed, forgetful):
        run.model.load_state_dict(whole.model.state_dict())
        run.inputs.context.random.generator.set_state(
            whole.inputs.context.random.generator.get_state()
        )
    for run in (whole, resumed, forgetful):
        run.step(1000.0)
    assert equal(resumed.snapshot(), whole.snapshot())
    assert torch.equal(
        resumed.optimizer.recent_norms["model"].norms, whole.optimizer.recent_norms["model"].norms
    )
    assert whole.optimizer.clipped_steps == resumed.optimizer.clipped_steps == 1
    assert forgetful.optimizer.clipped_steps == 0  # a checkpoint of format 1


@pytest.mark.parametrize(("window", "expected"), [(3, [3, 4, 5]), (7, [math.inf] * 2)])
def test_window_of_a_continued_run_may_change(window, expected):
    saved, recent = RecentNorms(5, CPU), RecentNorms(window, CPU)
    for norm in range(1, 6):
        saved.add(torch.tensor(float(norm)), torch.tensor(False))
    recent.load(saved.norms)
    assert recent.norms.tolist()[: len(expected)] == expected
    assert recent.norms.tolist()[-3:] == [3, 4, 5]


def test_loss_scale_of_fp16_is_not_in_the_norm():
    assert_close(Run("train.precision=fp16").step(), Run().step(), rtol=1e-4, atol=0)


def test_learning_rates_per_network_and_milestones():
    run = Run(
        "train.epochs=9",
        "train.milestones=[2, 5]",
        "train.gamma=0.5",
        "motion.keypoint_detector.learning_rate=0",
        "motion.generator.learning_rate=1e-3",
        "masks.refinement.learning_rate=2e-3",
        "background.bg_base.learning_rate=3e-3",
        "discriminator.learning_rate=4e-3",
    )
    assert base_learning_rates(run.config) == dict.fromkeys(NETWORKS, 2e-4) | {
        "keypoint_detector": 0, "generator": 1e-3, "refinement": 2e-3, "bg_base": 3e-3,
        "discriminator": 4e-3,
    }  # fmt: skip
    for epoch, factor in ((0, 1), (1, 1), (2, 0.5), (4, 0.5), (5, 0.25), (8, 0.25), (1, 1)):
        run.optimizer.set_epoch(epoch)
        rates = {group["name"]: group["lr"] for group in run.optimizer.algorithm.param_groups}
        assert rates["generator"] == pytest.approx(1e-3 * factor)
        assert rates["dense_motion"] == pytest.approx(2e-4 * factor)
        assert rates["refinement"] == pytest.approx(2e-3 * factor)
        assert rates["bg_base"] == pytest.approx(3e-3 * factor)
    detector = run.model.networks["keypoint_detector"]
    before = [p.clone() for p in detector.parameters()]
    run.step()
    assert all(torch.equal(a, b) for a, b in zip(before, detector.parameters(), strict=True))


def test_adam_as_published():
    adam = Run("train.betas=[0.5, 0.999]").optimizer.algorithm
    assert [group["name"] for group in adam.param_groups] == NETWORKS
    for group in adam.param_groups:
        assert group["betas"] == (0.5, 0.999)
        assert (group["weight_decay"], group["eps"], group["amsgrad"]) == (0, 1e-8, False)


def plain_algorithm(name, parameters):
    """As torch has it, unfused: one parameter after the other."""
    if name == "adam":
        return torch.optim.Adam(
            parameters, lr=1e-2, betas=(0.5, 0.999), weight_decay=1e-2, foreach=False
        )
    return torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=1e-2, foreach=False)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_steps_are_those_of_the_unfused_algorithm_without_the_bad_step(name):
    run = Run(f"train.optimizer={name}", "train.learning_rate=1e-2", "train.weight_decay=1e-2")
    copies = [p.detach().clone().requires_grad_() for p in run.model.parameters()]
    plain, gradients = plain_algorithm(name, copies), []
    run.optimizer.algorithm.register_step_pre_hook(
        lambda *_: gradients.extend(p.grad.clone() for p in run.model.parameters())
    )
    for factor in (1.0, 2.0, math.nan, -1.0, 0.5):
        gradients.clear()
        run.step(factor)
        if math.isfinite(factor):
            for parameter, gradient in zip(copies, gradients, strict=True):
                parameter.grad = gradient
            plain.step()
        for parameter, expected in zip(run.model.parameters(), copies, strict=True):
            assert_close(parameter, expected, rtol=1e-5, atol=1e-7)
    assert run.optimizer.bad_steps.item() == 1


class OneWeight(torch.nn.Module):
    """A model that is one number, of value 1, in the place of a tiny model."""

    def __init__(self):
        super().__init__()
        self.generator = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.generator.weight)
        self.trained_networks = {"generator": self.generator}


# By hand, for the gradients 2, NaN and -1, with a learning rate of .1 and a weight decay of .5. The
# gradients with the decay are 2 + .5 = 2.5 and -1 + .5 w.
BY_HAND = {
    # v = 2.5, w = 1 - .25 = .75; skipped; v = .9 * 2.5 - 1 + .375 = 1.625, w = .75 - .1625.
    "sgd": [0.75, 0.75, 0.5875],
    # The first step of Adam is .1 times the sign: w = .9; skipped. Then g = -1 + .45 = -.55,
    # m = .5 * 1.25 - .275 = .35, v = .00625 * .999 + .0003025 = .00654625; with the corrections
    # .35 / .75 and v / .001999: w = .9 - .1 * .466667 / sqrt(3.27476) = .874212.
    "adam": [0.9, 0.9, 0.874212],
}


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steps_by_hand(name):
    config = tiny_config(
        f"train.optimizer={name}",
        "train.learning_rate=0.1",
        "train.weight_decay=0.5",
        "train.clip_ratio=null",
    )
    model = OneWeight()
    optimizer = Optimizer(model, None, config, CPU)
    found = []
    for gradient in (2.0, math.nan, -1.0):
        model.generator.weight.grad = torch.tensor([[gradient]])
        optimizer.step(torch.tensor(1.0))
        found.append(model.generator.weight.item())
    assert found == pytest.approx(BY_HAND[name], rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_continued_run_equals_an_uninterrupted_one(name):
    algorithm = f"train.optimizer={name}"
    whole = Run(algorithm)
    for _ in range(2):
        whole.step()
    networks, saved = whole.model.state(), copy.deepcopy(whole.optimizer.state())
    networks = {n: {k: t.clone() for k, t in state.items()} for n, state in networks.items()}
    generator = whole.inputs.context.random.generator.get_state()
    whole.step()

    resumed = Run(algorithm, "seed=1")
    for name, network in resumed.model.networks.items():
        network.load_state_dict(networks[name])
    resumed.optimizer.load_state(saved)
    resumed.inputs.context.random.generator.set_state(generator)
    resumed.step()
    assert equal(resumed.snapshot(), whole.snapshot())


def test_bad_step_is_undone_after_loading_too():
    """The buffers of the modules are still views of the joined tensor after load_state_dict."""
    run, other = Run(), Run("seed=1")
    other.step()
    for name, network in run.model.networks.items():
        network.load_state_dict(other.model.networks[name].state_dict())
    norm = run.model.motion.generator.first.norm
    storage = run.optimizer.statistics[0].untyped_storage().data_ptr()
    assert norm.running_mean.untyped_storage().data_ptr() == storage
    before = run.snapshot()
    run.step(math.nan)
    after = run.snapshot()  # it has Adam's moments, which exist from the first step on
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_joining_the_buffers_changes_no_checkpoint():
    config = tiny_config()
    model = Model(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Optimizer(model, None, config, CPU)
    assert equal(model.state_dict(), before)


def filled(value):
    model = Model(tiny_config())
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.fill_(value)
    return model


def test_moving_average_by_hand():
    average = MovingAverage(filled(0), decay=0.15)
    current = filled(10)
    for _ in range(3):
        average.update(current)
    # The decays are 1/10, min(0.15, 2/11) and min(0.15, 3/12), so the averages are 9, 9.85, 9.9775.
    norm = average.model.motion.generator.first.norm
    assert norm.weight[0].item() == pytest.approx(9.9775)
    assert norm.running_mean[0].item() == pytest.approx(9.9775)
    assert norm.num_batches_tracked.item() == 10  # a count is copied, not averaged
    assert not any(p.requires_grad for p in average.model.parameters())


def test_moving_average_does_not_share_memory_with_the_model():
    run = Run()
    average = MovingAverage(run.model, decay=0.9)
    before = {name: tensor.clone() for name, tensor in average.model.state_dict().items()}
    run.step()
    assert equal(average.model.state_dict(), before)


def test_moving_average_state_round_trip():
    average = MovingAverage(filled(1), decay=0.9)
    average.update(filled(2))
    other = MovingAverage(filled(0), decay=0.9)
    other.load_state(average.state())
    for each in (average, other):
        each.update(filled(3))
    assert other.num_updates == 2
    assert equal(other.model.state_dict(), average.model.state_dict())
