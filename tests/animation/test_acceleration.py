"""Networks rewritten for inference compute the same pictures as before."""

import copy
import functools
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from animation.acceleration import (
    ENCODERS,
    ChannelsLastInstanceNorm,
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
from branches.motion.branch import MOTION_MODES
from common import speed_trial
from common.errors import UserError
from tests.helpers.factories import noise_inputs
from tests.helpers.lively import kind_config, lively_model

CPU = torch.device("cpu")
# How the source is moved, for each kind of motion model.
WAYS = {
    "fomm": ("relative", "absolute", "masks", "same figure"),
    "monkey_net": ("relative", "absolute"),
    "x2face": ("absolute",),
    "tpsmm": ("relative", "absolute", "avd", "same scene"),
}
CASES = [(kind, way) for kind, ways in WAYS.items() for way in ways]
AVD = ("motion.avd.code=8",)


@functools.cache
def build(kind):
    return lively_model(kind_config(kind, *(AVD if kind == "tpsmm" else ())))


@functools.cache
def optimized(kind, dtype):
    return optimize_for_inference(build(kind), dtype)


@pytest.fixture(scope="module")
def model():
    return build("fomm")


@pytest.fixture(scope="module")
def frames():
    images = noise_inputs(kind_config("fomm"), batch=6).driving
    return (images * 255).round().byte().movedim(1, -1).numpy().copy()


def predictions(model, way, frames):
    if way in MOTION_MODES:
        animator = build_animator(model, CPU, "motion", motion=way)
    elif way == "masks":
        animator = build_animator(model, CPU, "masks")
    else:
        name = {"same figure": "masks", "same scene": "motion"}[way]
        animator = reconstruction_animators(model, CPU)[name]
    moved = animate(animator, frames[0], iter(frames[1:]), batch_size=3)
    return torch.cat([prediction for _, prediction in moved])


def psnr(prediction, expected):
    return -10 * math.log10(float((prediction - expected).square().mean()))


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_animation_is_the_same(frames, kind, way):
    expected = predictions(build(kind), way, frames)
    found = predictions(optimized(kind, torch.float32), way, frames)
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
@pytest.mark.parametrize(("kind", "way"), CASES)
def test_half_precision_changes_little(frames, kind, way, dtype, at_least):
    expected = predictions(build(kind), way, frames)
    found = predictions(optimized(kind, dtype), way, frames)
    assert found.dtype == torch.float32
    assert psnr(found, expected) > at_least
    # All networks of X2Face compute coordinates, so they stay in full precision.
    assert ((found - expected).abs().max() > 1e-5) == (kind != "x2face")


EXACT = {
    "fomm": {"keypoint_detector"},
    "monkey_net": {"keypoint_detector"},
    "x2face": {"embedding", "driving"},
    "tpsmm": {"keypoint_detector", "background_motion"},
}
WITH_ENCODER = {
    "fomm": {"generator"},
    "monkey_net": {"generator"},
    "x2face": set(),
    "tpsmm": {"inpainting"},
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", WAYS)
def test_parts_that_stay_in_full_precision(frames, kind, dtype):
    model, fast = build(kind), optimized(kind, dtype)
    pictures = frames_to_tensor(frames, CPU)
    with torch.inference_mode():
        pairs = [
            (each.masks.mask_generator(pictures), each.motion.detect(pictures))
            for each in (fast, model)
        ]
        assert_close(*pairs, atol=1e-4, rtol=0)
        encoded = [each.motion.encode(pictures[:1]) for each in (fast, model)]
        assert_close(*encoded, atol=1e-4, rtol=0)
    halved = {
        name: dtypes
        for name, network in fast.networks.items()
        if (dtypes := {p.weight.dtype for p in network.modules() if isinstance(p, nn.Conv2d)})
    }
    exact = {name for name, dtypes in halved.items() if dtypes == {torch.float32}}
    assert exact == {"mask_generator", *EXACT[kind]}
    assert {name for name, dtypes in halved.items() if len(dtypes) > 1} == WITH_ENCODER[kind]


@pytest.mark.parametrize("kind", WAYS)
def test_norms_are_folded_and_the_model_itself_does_not_change(kind):
    model = build(kind)
    before = copy.deepcopy(model.state())
    fast = optimize_for_inference(model, torch.bfloat16)
    for name, network in model.state().items():
        for key, tensor in network.items():
            assert torch.equal(tensor, before[name][key])
    left = [name for name, part in fast.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert left
    assert all(name.endswith("norm1") for name in left)
    assert not fast.training


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_every_convolution_gets_channels_last_memory(frames, kind, way):
    """Its input and its weights; a planar input would be converted in every call."""
    fast = copy.deepcopy(optimized(kind, torch.bfloat16))
    planar, num_calls = set(), 0

    def look(name, layer, arguments):
        nonlocal num_calls
        num_calls += 1
        for tensor in (arguments[0], layer.weight):
            if not tensor.is_contiguous(memory_format=torch.channels_last):
                planar.add(name)

    for name, layer in fast.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(functools.partial(look, name))
    predictions(fast, way, frames)
    assert num_calls > 10
    assert planar == set()


@pytest.mark.parametrize("kind", WAYS)
def test_the_parts_that_encode_the_source_run_once(frames, kind):
    fast = copy.deepcopy(optimized(kind, torch.float32))
    encoders = {
        f"{name}.{part}": network.get_submodule(part)
        for name, network in fast.networks.items()
        for part in (("unet",) if name == "embedding" else ENCODERS.get(type(network), ()))
    }
    calls = []

    def count(name, _, arguments):
        calls.append((name, len(arguments[0])))

    for name, encoder in encoders.items():
        layer = next(part for part in encoder.modules() if isinstance(part, nn.Conv2d))
        layer.register_forward_pre_hook(functools.partial(count, name))
    predictions(fast, WAYS[kind][0], frames)  # in two batches
    assert sorted(calls) == sorted((name, 1) for name in encoders)
    assert calls


@pytest.mark.parametrize("kind", WAYS)
def test_every_network_is_compiled_as_one_graph(frames, monkeypatch, kind):
    compiler = torch.compile

    def trace(compute, dynamic):
        return compiler(compute, backend="eager", fullgraph=True, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", trace)
    torch._dynamo.reset()
    compiled = copy.deepcopy(optimized(kind, torch.float32))
    compile_networks(compiled)
    for way in WAYS[kind]:
        expected = predictions(optimized(kind, torch.float32), way, frames)
        assert_close(predictions(compiled, way, frames), expected, atol=1e-5, rtol=0)
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_instance_norm_in_channels_last_memory_equals_torchs(dtype):
    norm = nn.InstanceNorm2d(6, affine=True)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    image = torch.randn(2, 6, 8, 10).to(dtype, memory_format=torch.channels_last)
    found = ChannelsLastInstanceNorm(norm)(image)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    error = {torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}[dtype]
    assert_close(found.float(), norm(image.float()), atol=error, rtol=0)


@pytest.mark.parametrize("side", [3, 7])
def test_regrouped_convolution_equals_the_convolution(side):
    conv = nn.Conv2d(5, 3, side, padding=side // 2).double()
    image = torch.randn(2, 5, 6, 10, dtype=torch.float64)
    assert_close(RegroupedConv2d(conv)(image), conv(image))


@pytest.mark.parametrize(("ratio", "chosen"), [(0.5, "bf16"), (0.95, "float32"), (9, "float32")])
def test_precision_of_a_cpu_follows_from_its_speed(monkeypatch, ratio, chosen):
    monkeypatch.setattr(speed_trial, "half_precision_ratio", lambda *_: ratio)
    assert choose_precision("auto", CPU).precision == chosen


@pytest.mark.parametrize("precision", ["auto", "fp16"])
def test_precision_of_networks_that_all_compute_coordinates(precision):
    choice = choose_precision(precision, torch.device("cuda"), ["embedding", "driving"])
    assert str(choice) == "float32 (all of them compute coordinates)"
    choice = choose_precision(precision, torch.device("cuda"), ["keypoint_detector", "generator"])
    assert choice.precision == "fp16"


def test_precision_that_is_asked_for(caplog):
    assert choose_precision("auto", torch.device("cuda", 1)).precision == "fp16"
    assert choose_precision("float32", CPU).precision == "float32"
    assert not caplog.messages
    assert choose_precision("bf16", CPU).precision == "bf16"
    assert caplog.messages == [
        "warning: --precision: bf16 is emulated on this device, convolutions take 20.0 times as "
        "long as in float32; use auto or float32"
    ]


@pytest.mark.parametrize(
    ("kind", "way", "num_networks"),
    [
        ("fomm", "relative", 3),
        ("fomm", "masks", 4),
        ("monkey_net", "relative", 3),
        ("x2face", "absolute", 1),  # its faces are embedded one by one
        ("tpsmm", "relative", 3),
        ("tpsmm", "avd", 4),
    ],
)
def test_only_whole_batches_are_compiled(frames, monkeypatch, kind, way, num_networks):
    """The source alone and the last frames of a clip run without compilation."""
    sizes = []

    def record(compute, dynamic):
        def run(first, *others):
            sizes.append(len(first if isinstance(first, torch.Tensor) else first[0]))
            return compute(first, *others)

        return run

    monkeypatch.setattr(torch, "compile", record)
    compiled = copy.deepcopy(build(kind))
    compile_networks(compiled)
    found = predictions(compiled, way, frames)  # 3 and 2 frames
    assert sizes == [3] * num_networks
    assert_close(found, predictions(build(kind), way, frames), atol=1e-5, rtol=0)


def test_without_a_compiler(monkeypatch):
    """The error is one line; the source alone is not compiled and needs no compiler."""
    from torch._inductor import config  # takes a second

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(config, "force_disable_caches", True)
    double = compile_whole_batches(lambda images: images.relu() + images)
    assert_close(double(torch.ones(1, 3)), torch.full((1, 3), 2.0))
    with pytest.raises(UserError, match=r"^--compile: .*compiler.*; mend it, or leave"):
        double(torch.ones(2, 3))
