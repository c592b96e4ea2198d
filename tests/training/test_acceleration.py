"""Optimizations change results by rounding only; each network compiles to one graph, and once."""

import pytest
import torch
from torch.testing import assert_close

from tests.training.test_step import Run
from training import acceleration
from training.acceleration import compile_networks, prepare_networks, uncompiled


def prepared(*overrides):
    run = Run(*overrides)
    prepare_networks(run.model, run.adversary, run.perceptual, run.config.train)
    return run


def test_layout_follows_the_config():
    for channels_last in (True, False):
        run = prepared(f"train.channels_last={channels_last}".lower())
        weight = run.model.motion.generator.up_blocks[0].conv.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_frozen_weights_are_stored_in_the_dtype_of_autocast(precision, dtype):
    run = prepared(f"train.precision={precision}")
    assert {p.dtype for p in run.perceptual.vgg.convs.parameters()} == {dtype}
    assert {p.dtype for p in run.model.parameters()} == {
        torch.float32
    }  # trained weights stay float32
    assert run.perceptual.vgg.mean.dtype == torch.float32


def test_storing_frozen_weights_in_half_precision_changes_no_number():
    cast, stored = prepared("train.precision=bf16"), prepared("train.precision=bf16")
    cast.perceptual.vgg.convs.float()
    a, b = cast.step().scalars, stored.step().scalars
    assert torch.equal(a["loss/motion/perceptual"], b["loss/motion/perceptual"])


def test_tf32_is_for_convolutions_only():
    before = torch.backends.cudnn.allow_tf32
    try:
        for tf32 in (False, True):
            prepared(f"train.tf32={tf32}".lower())
            assert torch.backends.cudnn.allow_tf32 == tf32
            assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def compilations(monkeypatch):
    """Replaces the compiler by one that only records the graphs it gets; returns these."""
    graphs = []

    def compile(function, *, mode, dynamic, fullgraph):
        assert mode is None  # that is what `default` becomes

        def backend(graph, inputs):
            graphs.append(graph)
            return torch._dynamo.backends.debugging.aot_eager(graph, inputs)

        return original(function, backend=backend, dynamic=dynamic, fullgraph=fullgraph)

    original = torch.compile
    monkeypatch.setattr(acceleration.torch, "compile", compile)
    torch._dynamo.reset()
    yield graphs
    torch._dynamo.reset()
    torch._functorch.config.donated_buffer = True


def test_compiled_steps_give_the_same_numbers_from_graphs_made_once(compilations):
    """All branches and a discriminator are compiled; the steps mix images in turns."""
    plain, compiled = Run(), Run("train.compile=default")
    names = set(compiled.model.state_dict())
    compile_networks(compiled.model, compiled.adversary, compiled.perceptual, compiled.config.train)
    assert set(compiled.model.state_dict()) == names
    known = []
    for host_random in (0.0, 0.99, 0.0, 0.99):
        expected, found = (
            plain.step(host_random=host_random).scalars,
            compiled.step(host_random=host_random).scalars,
        )
        assert found.keys() == expected.keys()
        for name in ("loss/total", "discriminator_loss/total"):
            assert_close(found[name], expected[name], rtol=1e-4, atol=0)
        known.append(len(compilations))
    assert known[0] > len(compiled.model.networks)
    assert known[-1] == known[1]  # nothing is compiled after the first two steps


def test_everything_but_the_step_runs_uncompiled(compilations):
    run = Run("train.compile=default")
    train = run.config.train
    compile_networks(run.model, run.adversary, run.perceptual, train)
    detector = run.model.motion.keypoint_detector.eval()
    frames = torch.rand(3, 3, 32, 32)
    with uncompiled(train):
        detector(frames)
    assert not compilations
    detector(frames)
    assert len(compilations) == 1
