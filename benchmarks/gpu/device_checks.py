"""What only a device can show: resume, NCCL, synchronized BatchNorm, lack of memory."""

import contextlib
import io
import logging
import shutil
import socket
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn.modules._functions import SyncBatchNorm as TorchSyncBatchNorm

import train
from animation.acceleration import DTYPES, optimize_for_inference
from animation.branch_animators import MotionAnimator, animate
from benchmarks.gpu.checks import Check, Setup
from benchmarks.gpu.rows import SYNTHETIC, row
from benchmarks.training_steps import in_fresh_process
from branches.model import Model
from checkpoints.checkpoint import load
from common.cli import run_entry_point
from common.distributed import processes, rendezvous
from common.errors import UserError
from training.distributed.sync_batch_norm import SyncBatchNorm

# All branches and the discriminator, in seconds: the demo at half its size.
SMALL_RUN: Final = (
    *("--config", "demo.yaml", "data.image_size=32", "data.puppets.num_train_clips=16"),
    *("data.puppets.num_test_clips=2", "data.puppets.num_frames=4", "data.num_workers=0"),
    *("motion.generator.num_res_blocks=1", "log.num_validation_clips=1", "log.images_every=100"),
    *("masks.refinement.start_share=0", "background.start_share=0", "train.batch_size=4"),
    *("motion.keypoint_detector.num_blocks=3", "motion.dense_motion.num_blocks=3"),
    "motion.prior.alone_until_epoch=0",
    *("masks.high_resolution.num_blocks=3", "background.bg_refine.num_blocks=3"),
    *("train.checkpoint_every=2", "log.scalars_every=2", "log.validate_every=100"),
    *("train.max_minutes=null", "train.min_steps=null", "train.min_steps_minutes=null"),
)
NUM_STEPS: Final = 4
SHARE: Final = 0.02  # of the memory of a GPU: 2.8 GiB of an H200, less than the checks below need


def checks() -> list[Check]:
    return [
        Check("resume", resume, 90),
        Check("exchange by the group", exchange, 60),
        Check("lack of memory in training", training_memory, 90),
        Check("lack of memory in animation", animation_memory, 60),
    ]


def resume(setup: Setup) -> dict[str, Any]:
    """Compare a run with the same run again, and with one that was ended and resumed.

    torch has no deterministic backward pass of grid_sample on CUDA. If two equal runs differ
    therefore, the resumed one must not differ more than three times as much.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            first, again, resumed = (Path(folder) / name for name in ("first", "again", "resumed"))
            for path in (first, again):
                _train(setup, path)
            shutil.copytree(first, resumed)
            for path in (resumed / "checkpoints").iterdir():
                if path.name != _step_file(resumed, NUM_STEPS // 2).name:
                    path.unlink()
            _train(setup, resumed, "--resume")
            spread, difference = _distance(first, again), _distance(first, resumed)
    finally:
        torch.use_deterministic_algorithms(False)
    unsteady = {str(w.message).split(" ")[0] for w in seen if "deterministic" in str(w.message)}
    failed = [f"differs by {difference:.2g}"] if not difference <= 3 * spread else []
    found = {"two equal runs": spread, "resumed": difference, "not deterministic": sorted(unsteady)}
    return found | {"failed": failed}


def _train(setup: Setup, folder: Path, *further: str) -> None:
    run_training(setup, folder, *SMALL_RUN, f"train.max_steps={NUM_STEPS}", *further)


def run_training(setup: Setup, folder: Path, *arguments: str) -> None:
    """Run train.py on the device of `setup`, with its results in `folder`."""
    argv = [*arguments, f"run.output_dir={folder}", *_device(setup)]
    code = run_entry_point(train.main, train.build_parser(), argv)
    if code != 0:
        raise UserError(f"train.py has ended with code {code}")


def _device(setup: Setup) -> tuple[str, str]:
    return "--device", setup.device.type


def _step_file(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}.pt"


def _distance(a: Path, b: Path) -> float:
    """Largest difference of a weight, relative to the largest weight of its tensor."""
    first, second = (load(_step_file(path, NUM_STEPS)).networks for path in (a, b))
    return max(
        float((x.double() - second[network][name].double()).abs().max() / x.abs().max().clamp(1e-6))
        for network, state in first.items()
        for name, x in state.items()
        if x.is_floating_point() and x.numel() > 0
    )


def exchange(setup: Setup) -> dict[str, Any]:
    """Add up a tensor in a group of one process, which uses NCCL on CUDA, and compare both
    synchronized BatchNorms with BatchNorm: output, gradient and statistics.
    """
    return in_fresh_process(partial(_exchange, setup))


def _exchange(setup: Setup) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = rendezvous.ProcessPlace(0, 1, "127.0.0.1", port)
    failed, device = [], setup.device
    # A process alone forms no group by itself.
    with patch.object(processes, "read_place", lambda: place), processes.process_group(30.0):
        values = torch.arange(5.0, device=device)
        processes.add_up(values)
        if values.tolist() != [0.0, 1.0, 2.0, 3.0, 4.0]:
            failed.append("the sum of one process is another one")
        backend = torch.distributed.get_backend_config()
        plain = nn.BatchNorm2d(8).to(device)
        layers: dict[str, nn.Module] = {"own": SyncBatchNorm.like(plain)}
        if device.type == "cuda":
            layers["torch's"] = _TorchNorm(copy_of=plain)
        expected = _norm_results(plain)
        for name, layer in layers.items():
            for found, wanted in zip(_norm_results(layer), expected, strict=True):
                if not torch.allclose(found, wanted, rtol=1e-4, atol=1e-5):
                    failed.append(f"{name} synchronized BatchNorm differs")
    return {"backend": str(backend), "layers": list(layers), "failed": failed}


class _TorchNorm(nn.Module):
    """The function of torch.nn.SyncBatchNorm, which the module skips with a single process."""

    def __init__(self, copy_of: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(copy_of.num_features).to(copy_of.weight.device)
        self.running_mean, self.running_var = self.norm.running_mean, self.norm.running_var

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.norm
        result: torch.Tensor = TorchSyncBatchNorm.apply(
            *(x, n.weight, n.bias, n.running_mean, n.running_var, n.eps, n.momentum),
            *(torch.distributed.group.WORLD, 1),
        )
        return result


def _norm_results(layer: nn.Module) -> tuple[torch.Tensor, ...]:
    """Output, gradient of the input and running statistics after one batch."""
    device = next(layer.parameters()).device
    x = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0)).to(device)
    y = layer(x.requires_grad_())
    y.square().mean().backward()
    assert x.grad is not None
    statistics = (layer.running_mean, layer.running_var)
    return y.detach(), x.grad, *(s.clone() for s in statistics if isinstance(s, torch.Tensor))


def training_memory(setup: Setup) -> dict[str, Any]:
    """Train with too little memory: it must end with code 2 and one line that says what to set."""
    code, lines = in_fresh_process(partial(_train_without_memory, setup))
    good = code == 2 and len(lines) == 1 and "out of memory" in lines[0]
    return {"line": lines[-1:], "failed": [] if good else [f"code {code}", *lines[-3:]]}


def _train_without_memory(setup: Setup) -> tuple[int, list[str]]:
    overrides = ("train.batch_size=16", "train.max_steps=1", "data.num_workers=0")
    config: tuple[str, ...] = ("--config", "vox-fomm.yaml", *SYNTHETIC, *overrides)
    if setup.tiny:
        config = SMALL_RUN
    with TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        argv = [*config, f"run.output_dir={folder}/run", *_device(setup)]
        if setup.device.type == "cuda" and not setup.tiny:
            torch.cuda.set_per_process_memory_fraction(SHARE)
        else:
            stack.enter_context(patch("training.trainer.train_step", _no_memory))
        stderr = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        code = run_entry_point(train.main, train.build_parser(), argv)
        lines = [line for line in stderr.getvalue().splitlines() if "error" in line]
    return code, lines


def _no_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("out of memory")


def animation_memory(setup: Setup) -> dict[str, Any]:
    """Animate with too little memory for the batch: it must be halved, and no frame be lost."""
    return in_fresh_process(partial(_animate_without_memory, setup))


def _animate_without_memory(setup: Setup) -> dict[str, Any]:
    num_frames = 8 if setup.tiny else 256
    model = optimize_for_inference(Model(row("vox-fomm", setup.tiny)), DTYPES["float32"])
    model.to(setup.device)
    assert model.motion is not None
    side = 64 if setup.tiny else 256
    frames = np.random.default_rng(0).integers(
        256, size=(num_frames, side, side, 3), dtype=np.uint8
    )
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("animation.branch_animators").addHandler(handler)
    animator = MotionAnimator(model.motion, setup.device)
    with _little_memory(setup, model.networks["keypoint_detector"], num_frames // 2):
        sizes = [len(batch) for batch, _ in animate(animator, frames[0], frames, num_frames)]
    failed = [] if lines else ["there was memory enough"]
    failed += [] if sum(sizes) == num_frames else [f"{sum(sizes)} of {num_frames} frames"]
    return {"batches": sizes[:3], "lines": lines[:2], "failed": failed}


@contextlib.contextmanager
def _little_memory(setup: Setup, network: nn.Module, most: int) -> Iterator[None]:
    """Context manager: memory is scarce; for tiny networks, `network` lacks it for more than `most`
    frames.
    """
    if setup.device.type == "cuda" and not setup.tiny:
        torch.cuda.set_per_process_memory_fraction(SHARE)
        yield
        return

    def check(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        if len(arguments[0]) > most:
            _no_memory()

    hook = network.register_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()
