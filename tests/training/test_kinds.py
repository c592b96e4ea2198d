"""The training step of every kind of motion model: micro-batches, precision, compiler, device."""

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.factories import WaitsForTheDevice, noise_batch
from tests.helpers.kinds import (
    KINDS,
    MONKEY_NET,
    MONKEY_NET_DISCRIMINATOR,
    use_small_resnets,
)
from tests.training.test_step import Run, gradients
from training import acceleration
from training.acceleration import compile_networks

STEPS = KINDS | {
    "monkey_net": (MONKEY_NET, MONKEY_NET_DISCRIMINATOR, "masks=null", "background=null")
}
REST = [kind for kind in STEPS if kind != "fomm"]  # which is tested with all branches


@pytest.fixture(autouse=True)
def small_resnets(monkeypatch):
    use_small_resnets(monkeypatch)


@pytest.mark.parametrize("kind", REST)
def test_micro_batches_give_the_gradient_of_the_whole(kind):
    runs = [Run(*STEPS[kind], *parts, double=True) for parts in ((), ("train.micro_batch=2",))]
    for run in runs:
        run.model.eval()  # so that BatchNorm does not mix samples
    (whole, whole_scalars), (parts, parts_scalars) = (trained_gradients(run) for run in runs)
    assert whole.keys() == parts.keys()
    reached = 0
    for name, gradient in whole.items():
        assert_close(parts[name], gradient, atol=1e-11, rtol=1e-9)
        reached += bool(gradient.any())
    assert reached > len(whole) / 2
    assert_close(whole_scalars["loss/total"], parts_scalars["loss/total"])


def trained_gradients(run):
    """As `gradients`, of those parameters that train."""
    for players in (run.model, run.adversary):
        if players is not None:
            for parameter in players.parameters():
                parameter.grad = torch.zeros_like(parameter)  # those that are frozen keep it
    found, scalars = gradients(run)
    trained = {
        f"0.motion.{network}.{name}"
        for network, module in run.model.trained_networks.items()
        for name, _ in module.named_parameters()
    }
    return {n: g for n, g in found.items() if n in trained or n.startswith("1.")}, scalars


@pytest.mark.parametrize("kind", REST)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_steps_in_half_precision_stay_near_float32(kind, precision):
    plain = Run(*STEPS[kind]).step().scalars
    half = Run(*STEPS[kind], f"train.precision={precision}").step().scalars
    assert half["loss/total"].dtype == torch.float32
    assert_close(half["loss/total"], plain["loss/total"], rtol=0.05, atol=0)


@pytest.mark.parametrize("kind", REST)
def test_steps_reduce_the_loss(kind):
    run = Run(*STEPS[kind], "train.learning_rate=2e-3", "motion.losses.pixel=1")
    values = [run.step().scalars["loss/total"].item() for _ in range(30)]
    assert min(values[-5:]) < 0.9 * values[0]


@pytest.mark.parametrize("kind", REST)
def test_a_step_does_not_wait_for_the_device(kind):
    run = Run(*STEPS[kind], "train.optimizer=sgd", "train.learning_rate=1e-6")
    run.step()  # fills caches
    with WaitsForTheDevice() as waits:
        run.step()
    assert waits.found == []


@pytest.fixture
def graphs(monkeypatch):
    """Replaces the compiler by one that runs the whole graphs that it gets, and records them."""
    found = []

    def compile(function, *, mode, dynamic, fullgraph):
        def backend(graph, inputs):
            found.append(graph)
            return graph.forward

        assert fullgraph
        return original(function, backend=backend, dynamic=dynamic, fullgraph=True)

    original = torch.compile
    monkeypatch.setattr(acceleration.torch, "compile", compile)
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()
    torch._functorch.config.donated_buffer = True


@pytest.mark.parametrize("kind", REST)
def test_compiled_steps_give_the_same_numbers_from_graphs_made_once(kind, graphs):
    plain, compiled = Run(*STEPS[kind]), Run(*STEPS[kind], "train.compile=default")
    compile_networks(compiled.model, compiled.adversary, compiled.perceptual, compiled.config.train)
    known = []
    for _ in range(2):
        expected, found = plain.step().scalars, compiled.step().scalars
        assert_close(found["loss/total"], expected["loss/total"], rtol=1e-4, atol=0)
        known.append(len(graphs))
    assert known[0] >= len(compiled.model.trained_networks)
    assert known[1] == known[0]  # nothing is compiled after the first step


# The second stage of tpsmm


def test_frozen_networks_do_not_change():
    run = Run(*STEPS["tpsmm_avd"], "train.weight_decay=0.1", "train.ema_decay=0.5")
    before = {
        name: {key: tensor.clone() for key, tensor in state.items()}
        for name, state in run.model.state().items()
    }
    for _ in range(2):
        run.step()
    for name, state in run.model.state().items():
        same = [torch.equal(tensor, before[name][key]) for key, tensor in state.items()]
        assert all(same) if name != "avd" else not any(same)
    assert list(run.optimizer.networks) == ["avd"]
    assert [group["name"] for group in run.optimizer.algorithm.param_groups] == ["avd"]
    avd = run.model.networks["avd"]
    assert len(run.optimizer.algorithm.state) == len(list(avd.parameters()))
    buffers = [b for b in avd.buffers() if b.is_floating_point()]
    assert [joined.numel() for joined in run.optimizer.statistics] == [
        sum(buffer.numel() for buffer in buffers)
    ]


def test_the_second_stage_computes_no_features_of_the_perceptual_network():
    run = Run(*STEPS["tpsmm_avd"])
    assert not run.perceptual.vgg.convs
    assert not run.perceptual.pyramid
    run.batch = noise_batch(run.config)
    scalars = run.step().scalars
    assert {name for name in scalars if name.startswith("loss/")} == {
        "loss/motion/avd",
        "loss/total",
    }
    assert {"motion/stretch", "motion/keypoint_spread", "gradient_norm"} <= scalars.keys()
