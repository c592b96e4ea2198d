"""Correctness on the device: numbers against a CPU in float64, and what only a device can show.

Networks are random and inputs are puppets, two samples each. Frames and random numbers are drawn
once on the CPU, so every computation gets the same ones. `loss` is the largest difference of a
loss, relative to it; `gradient` that of a network's gradient, relative to its norm.
"""

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.animation_models import spread_keypoints
from benchmarks.gpu import device_checks
from benchmarks.gpu.checks import Check, Setup
from benchmarks.gpu.rows import row
from benchmarks.training_steps import build_trainer, first_batch, take_step
from branches.branch import StepContext
from branches.model import Model
from checkpoints.perceptual_weights import load_perceptual
from common.batch_random import BatchRandom
from configs.loading import override_config
from configs.schema import Config
from losses import Perceptual
from modules.tpsmm.keypoint_detector import GroupedKeypointDetector
from training.acceleration import prepare_networks
from training.adversary import Adversary, all_networks, build_adversary
from training.step import PreparedFrames, forward, prepare_frames

CPU = torch.device("cpu")
# Every kind of row; those of other data sets have the same parts, but for the last two.
ROWS: Final = (
    *("vox", "vox-fomm-adv", "vox-monkey-net", "vox-x2face", "vox-tpsmm", "vox-tpsmm-avd"),
    *("vox-fomm", "vox-masks", "vox-cutmix", "vox-unet", "vox-prioritycut"),
    *("vox-monkey-net-prioritycut", "vox-x2face-prioritycut", "vox-tpsmm-prioritycut"),
    *("bair-fomm-adv", "mgif-fomm"),
)
STEPS: Final = ROWS[:8]  # rows of which a whole step must not wait for the device
SAMPLES: Final = ("train.batch_size=2",)
LATE: Final = 1e9  # epochs; every part has started
# Largest differences, as above. In float32 a gradient may also differ by as many times as that of
# the CPU in float32 as FACTOR says: inverses of random Jacobians enlarge rounding.
LIMITS: Final = {
    "float32": (1e-3, 0.01),
    "tf32": (0.01, 0.3),
    "fp16": (0.05, 0.8),
    "bf16": (0.1, 1.0),
}
FACTOR: Final = 5.0
# Tried one after the other for fp16, as training does: small gradients must not become 0, and large
# ones not infinite.
SCALES: Final = (1024.0, 32.0, 1.0, 1 / 32)


class Networks(NamedTuple):
    """All networks of a step, on the CPU in float32."""

    model: Model
    adversary: Adversary | None
    perceptual: Perceptual

    def copied_to(self, device: torch.device, dtype: torch.dtype) -> "Networks":
        copies = (None if n is None else copy.deepcopy(n).to(device, dtype) for n in self)
        return Networks(*copies)  # type: ignore[arg-type]


class Numbers(NamedTuple):
    """Losses by name, and the gradients of each network as one vector, in float64 on the CPU."""

    losses: dict[str, float]
    gradients: dict[str, Tensor]


def checks(_setup: Setup) -> list[Check]:
    """See `checks.checks_of`."""
    found = [Check(f"no wait in a step of {name}", partial(no_wait, name), 60) for name in STEPS]
    found += device_checks.checks()
    found += [Check(f"numbers of {name}", partial(numbers, name), 90) for name in ROWS]
    return found


def no_wait(name: str, setup: Setup) -> dict[str, Any]:
    """Take a step in bf16 under `set_sync_debug_mode("error")`, after two that fill caches."""
    config = row(name, setup.tiny, *SAMPLES, "train.precision=bf16")
    trainer = build_trainer(config, setup.device)
    batch = first_batch(config).to(setup.device)
    for _ in range(2):
        take_step(trainer, batch, host_random=0.0)
    is_cuda = setup.device.type == "cuda"
    if is_cuda:
        torch.cuda.set_sync_debug_mode("error")
    try:
        scalars = take_step(trainer, batch, host_random=0.0).scalars
    finally:
        if is_cuda:
            torch.cuda.set_sync_debug_mode("default")
    bad = [name for name, value in scalars.items() if not torch.isfinite(value)]
    return {"failed": [f"{name} is not finite" for name in bad]}


def numbers(name: str, setup: Setup) -> dict[str, Any]:
    """Compare frames, losses and gradients of a row with those of a CPU in float64."""
    plain_way = ("train.precision=float32", "train.channels_last=false", "train.tf32=false")
    config = row(name, setup.tiny, *SAMPLES, *plain_way)
    networks = Networks(Model(config).train(), build_adversary(config), load_perceptual(config))
    for detector in networks.model.modules():
        if isinstance(detector, GroupedKeypointDetector):
            spread_keypoints(detector)
    batch, masks = first_batch(config), networks.model.masks is not None
    frames = prepare_frames(batch, False, masks)
    on_device = prepare_frames(batch.to(setup.device), False, masks)
    pairs = zip(on_device, frames, strict=True)
    found: dict[str, Any] = {"frames": max(float((a.cpu() - b).abs().max()) for a, b in pairs)}
    failed = [f"frames differ by {found['frames']:.2g}"] if found["frames"] > 1e-4 else []
    exact = compute(config, networks, frames, CPU, torch.float64)
    plain = differences(compute(config, networks, frames, CPU, torch.float32), exact)
    found |= {"loss, float32 on the CPU": plain[0], "gradient, float32 on the CPU": plain[1]}
    for precision, (of_loss, of_gradient) in LIMITS.items():
        tf32 = precision == "tf32"
        keys = (f"train.tf32={str(tf32).lower()}", "train.channels_last=true")
        changed = override_config(
            config, [f"train.precision={'float32' if tf32 else precision}", *keys]
        )
        scaled = partial(compute, changed, networks, frames, setup.device, torch.float32)
        for scale in SCALES if precision == "fp16" else (1.0,):
            loss, gradient = differences(scaled(scale), exact)
            if math.isfinite(gradient):
                break
        found |= {f"loss, {precision}": loss, f"gradient, {precision}": gradient}
        if not loss <= max(of_loss, FACTOR * plain[0]):
            failed.append(f"losses in {precision} differ by {loss:.2g}")
        if not gradient <= max(of_gradient, FACTOR * plain[1]):
            failed.append(f"gradients in {precision} differ by {gradient:.2g}")
    return found | {"failed": failed}


def compute(
    config: Config,
    networks: Networks,
    frames: PreparedFrames,
    device: torch.device,
    dtype: torch.dtype,
    scale: float = 1.0,
) -> Numbers:
    """Losses and gradients of one forward and backward pass of copies of `networks`.

    Args:
        scale: of the losses in the backward pass.
    """
    copies = networks.copied_to(device, dtype)
    prepare_networks(*copies, config.train)
    model, adversary, perceptual = copies
    layout = torch.channels_last if config.train.channels_last is True else torch.contiguous_format
    moved = PreparedFrames(*(x.to(device, dtype).contiguous(memory_format=layout) for x in frames))
    context = StepContext(LATE, _draws(device, dtype), host_random=0.0)
    result, losses = forward(model, adversary, perceptual, moved, context, config)
    players: dict[str, Mapping[str, nn.Module]] = {"model": model.trained_networks}
    if adversary is not None:
        players["discriminator"] = adversary.networks
    for player, loss in losses.items():
        own = [p for network in players[player].values() for p in network.parameters()]
        is_last = player == list(losses)[-1]
        torch.autograd.backward(loss * scale, inputs=own, retain_graph=not is_last)
    return Numbers(
        {name: float(x) for name, x in result.scalars.items() if "loss/" in name},
        {
            name: _flat(network) / scale
            for name, network in all_networks(model, adversary).items()
            if any(p.grad is not None for p in network.parameters())
        },
    )


def _draws(device: torch.device, dtype: torch.dtype) -> BatchRandom:
    """Random numbers that are drawn on the CPU in float32, whatever the device."""

    class Draws(BatchRandom):
        def _own_rows(self, drawn: Tensor) -> Tensor:
            return super()._own_rows(drawn).to(device, dtype)

    return Draws(torch.Generator().manual_seed(0))


def _flat(network: nn.Module) -> Tensor:
    gradients = (p.grad for p in network.parameters())
    return torch.cat([g.detach().double().cpu().flatten() for g in gradients if g is not None])


def differences(found: Numbers, exact: Numbers) -> tuple[float, float]:
    """The largest relative difference of a loss, and of a network's gradient; infinite if one is
    not finite or missing.
    """
    if (
        found.losses.keys() != exact.losses.keys()
        or found.gradients.keys() != exact.gradients.keys()
    ):
        return float("inf"), float("inf")
    of_losses = [
        abs(found.losses[name] - value) / max(abs(value), 1e-3)
        for name, value in exact.losses.items()
    ]
    of_gradients = [
        float((found.gradients[name] - g).norm() / g.norm().clamp(min=1e-12))
        for name, g in exact.gradients.items()
    ]
    return _largest(of_losses), _largest(of_gradients)


def _largest(values: list[float]) -> float:
    return max((v if v == v else float("inf") for v in values), default=0.0)
