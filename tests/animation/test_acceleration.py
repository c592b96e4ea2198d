"""Networks rewritten for inference compute the same pictures as before."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from animation.acceleration import (
    RegroupedConv2d,
    choose_precision,
    compile_networks,
    compile_whole_batches,
    optimize_for_inference,
)
from animation.background_swap import BackgroundSwapper
from animation.branch_animators import (
    animate,
    build_animator,
    frames_to_tensor,
    reconstruction_animators,
)
from branches.model import Model
from common import speed_trial
from common.errors import UserError
from modules.generator import Generator
from tests.helpers.factories import noise_inputs, tiny_config

CPU = torch.device("cpu")
CONFIG = tiny_config("data.image_size=[32, 48]")
KINDS = ("relative", "absolute", "masks", "same figure")


@pytest.fixture(scope="module")
def model():
    """A model whose BatchNorm statistics, keypoints and Jacobians are not trivial."""
    model = Model(CONFIG)
    generator = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.5, 1.5, generator=generator)
            norm.bias.data.uniform_(-0.3, 0.3, generator=generator)
    detector = model.networks["keypoint_detector"]
    for conv, size in ((detector.jacobian, 0.02), (detector.kp, 0.2)):
        conv.weight.data += size * torch.randn(conv.weight.shape, generator=generator)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            inputs = noise_inputs(CONFIG)
            for name, branch in model.branches.items():
                inputs = inputs.with_output(name, branch(inputs))
    return model.eval()


@pytest.fixture(scope="module")
def frames():
    images = noise_inputs(CONFIG, batch=6).driving
    return (images * 255).round().byte().movedim(1, -1).numpy().copy()


def predictions(model, kind, frames):
    if kind in ("relative", "absolute"):
        animator = build_animator(model, CPU, "motion", motion=kind)
    elif kind == "masks":
        animator = build_animator(model, CPU, "masks")
    else:
        animator = reconstruction_animators(model, CPU)["masks"]
    moved = animate(animator, frames[0], iter(frames[1:]), batch_size=3)
    return torch.cat([prediction for _, prediction in moved])


def psnr(prediction, expected):
    return -10 * math.log10(float((prediction - expected).square().mean()))


@pytest.mark.parametrize("kind", KINDS)
def test_animation_is_the_same(model, frames, kind):
    expected = predictions(model, kind, frames)
    found = predictions(optimize_for_inference(model, torch.float32), kind, frames)
    assert_close(found, expected, atol=1e-4, rtol=0)
    assert (expected[1:] - expected[:1]).abs().max() > 1e-3  # the driving frames matter


@pytest.mark.parametrize("kind", ["same", "other"])
@pytest.mark.parametrize("compose", ["network", "alpha"])
def test_background_swap_is_the_same(model, frames, kind, compose):
    pictures = frames_to_tensor(frames, CPU)
    fast = optimize_for_inference(model, torch.float32)
    found, expected = (
        BackgroundSwapper(each, kind, compose).swap(pictures[:3], pictures[3:])
        for each in (fast, model)
    )
    assert_close(found.alpha, expected.alpha, atol=1e-4, rtol=0)
    assert_close(found.result, expected.result, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("dtype", "at_least"), [(torch.bfloat16, 50), (torch.float16, 65)])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_changes_little(model, frames, kind, dtype, at_least):
    expected = predictions(model, kind, frames)
    fast = optimize_for_inference(model, dtype)
    found = predictions(fast, kind, frames)
    assert found.dtype == torch.float32
    assert psnr(found, expected) > at_least
    assert (found - expected).abs().max() > 1e-5  # half precision is used


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parts_that_stay_in_full_precision(model, frames, dtype):
    fast = optimize_for_inference(model, dtype).networks
    pictures = frames_to_tensor(frames, CPU)
    with torch.inference_mode():
        for name in ("keypoint_detector", "mask_generator"):
            expected, found = (networks[name](pictures) for networks in (model.networks, fast))
            assert_close(found, expected, atol=1e-4, rtol=0)
        encoded = fast["generator"].encode(pictures)
        assert_close(encoded, model.networks["generator"].encode(pictures), atol=1e-4, rtol=0)
    halved = {
        name: {layer.weight.dtype for layer in network.modules() if isinstance(layer, nn.Conv2d)}
        for name, network in fast.items()
    }
    assert {name for name, dtypes in halved.items() if dtypes == {torch.float32}} == {
        "keypoint_detector",
        "mask_generator",
    }
    assert {name for name, dtypes in halved.items() if len(dtypes) > 1} == {"generator"}


def test_norms_are_folded_and_the_model_itself_does_not_change(model):
    before = copy.deepcopy(model.state())
    fast = optimize_for_inference(model, torch.bfloat16)
    for name, network in model.state().items():
        for key, tensor in network.items():
            assert torch.equal(tensor, before[name][key])
    left = [name for name, part in fast.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert left
    assert all(name.endswith("norm1") for name in left)
    assert not fast.training


@pytest.mark.parametrize("side", [3, 7])
def test_regrouped_convolution_equals_the_convolution(side):
    conv = nn.Conv2d(5, 3, side, padding=side // 2).double()
    image = torch.randn(2, 5, 6, 10, dtype=torch.float64)
    assert_close(RegroupedConv2d(conv)(image), conv(image))


@pytest.mark.parametrize(("ratio", "chosen"), [(0.5, "bf16"), (0.95, "float32"), (9, "float32")])
def test_precision_of_a_cpu_follows_from_its_speed(monkeypatch, ratio, chosen):
    monkeypatch.setattr(speed_trial, "half_precision_ratio", lambda *_: ratio)
    assert choose_precision("auto", CPU).precision == chosen


def test_precision_that_is_asked_for(caplog):
    assert choose_precision("auto", torch.device("cuda", 1)).precision == "fp16"
    assert choose_precision("float32", CPU).precision == "float32"
    assert not caplog.messages
    assert choose_precision("bf16", CPU).precision == "bf16"
    assert caplog.messages == [
        "warning: --precision: bf16 is emulated on this device, convolutions take 20.0 times as "
        "long as in float32; use auto or float32"
    ]


def test_only_whole_batches_are_compiled(model, frames, monkeypatch):
    """The source alone and the last frames of a clip run without compilation."""
    sizes = []

    def record(compute, dynamic):
        def run(first, *others):
            sizes.append(len(first))
            return compute(first, *others)

        return run

    monkeypatch.setattr(torch, "compile", record)
    compiled = copy.deepcopy(model)
    compile_networks(compiled)
    for kind, num_networks in (("relative", 3), ("masks", 4)):
        found = predictions(compiled, kind, frames)  # 3 and 2 frames
        assert sizes == [3] * num_networks
        assert_close(found, predictions(model, kind, frames), atol=1e-5, rtol=0)
        sizes.clear()
    assert isinstance(compiled.networks["generator"], Generator)


def test_without_a_compiler(monkeypatch):
    """The error is one line; the source alone is not compiled and needs no compiler."""
    from torch._inductor import config  # takes a second

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(config, "force_disable_caches", True)
    double = compile_whole_batches(lambda images: images.relu() + images)
    assert_close(double(torch.ones(1, 3)), torch.full((1, 3), 2.0))
    with pytest.raises(UserError, match=r"^--compile: .*compiler.*; mend it, or leave"):
        double(torch.ones(2, 3))
