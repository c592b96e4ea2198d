"""Speed of a training step on the device, by motion model, batch size and way of computing.

samples/s, ms   by the median step
TFLOP/s         operations of convolutions and matrix products, forward and backward, divided by
                the time; peak is its share of the speed of a large bf16 matrix product
memory_gib      peak memory of the device, all of it
"""

import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.checks import Check, Setup, read_results
from benchmarks.gpu.profiling import profile
from benchmarks.gpu.rows import row
from benchmarks.train import Variant, build_variant, time_waiting
from benchmarks.training_steps import first_batch, peak_memory, seconds
from common.machine import num_cores
from configs.loading import override_config
from configs.schema import Config
from datasets.pack_writer import PackWriter, write_fragment
from datasets.pairs import PairBatch
from datasets.puppets.clips import Puppets
from media.container import DEFAULT_FRAME_RATE
from training.acceleration import uncompiled

MODELS: Final = (
    *("vox-fomm", "vox-fomm-adv", "vox", "vox-masks", "vox-monkey-net", "vox-x2face"),
    *("vox-tpsmm", "vox-tpsmm-avd"),
)
SECONDS: Final = 1.5  # of timed steps in a row
_WARM_UP, _MIN_STEPS, _MAX_STEPS = 3, 3, 30
PEAK: Final = "peak"


class Way(NamedTuple):
    """A way of computing a step: overrides of the config, and whether cuDNN tries its kernels."""

    overrides: tuple[str, ...]
    tries_kernels: bool = False


_BF16 = ("train.precision=bf16", "train.channels_last=true")
_FLOAT32 = ("train.precision=float32", "train.channels_last=true")
WAYS: Final = {
    "float32": Way((*_FLOAT32, "train.tf32=false")),
    "tf32": Way((*_FLOAT32, "train.tf32=true")),
    "bf16, planar": Way(("train.precision=bf16", "train.channels_last=false")),
    "bf16": Way(_BF16),
    "bf16, cuDNN tries kernels": Way(_BF16, tries_kernels=True),
    "fp16": Way(("train.precision=fp16", "train.channels_last=true")),
    "compiled": Way((*_BF16, "train.compile=default")),
    "CUDA graphs": Way((*_BF16, "train.compile=reduce-overhead")),
}
COMPILED: Final = ("compiled", "CUDA graphs")


def checks(setup: Setup) -> list[Check]:
    """See `checks.checks_of`. What answers most comes first, since the time may not suffice."""
    batch = 2 if setup.tiny else 32
    found = [Check(PEAK, peak, 30)]
    order = [
        *((name, "bf16", batch) for name in MODELS[:1]),
        *((MODELS[0], way, batch) for way in WAYS if way not in (*COMPILED, "bf16")),
        *((name, "bf16", batch) for name in MODELS[1:]),
        *((name, "bf16", 2 * batch) for name in MODELS),
    ]
    found += [_step_check(*what) for what in order]
    found += [
        Check("profile", partial(profile_best, batch), 60),
        Check("loader", partial(loader, batch), 60),
        *(_step_check(MODELS[0], way, batch) for way in COMPILED),
        *(_step_check(name, way, batch) for name in MODELS[1:] for way in ("float32", "tf32")),
        *(_step_check(name, "compiled", batch) for name in MODELS[1:]),
    ]
    return found


def _step_check(name: str, way: str, batch: int) -> Check:
    limit = 150.0 if way in COMPILED else 30.0
    return Check(f"{name}, {way}, {batch} samples", partial(step, name, way, batch), limit)


def peak(setup: Setup) -> dict[str, Any]:
    """TFLOP/s of a large matrix product in bf16, and in float32 with TF32 and without."""
    size, rounds = (8192, 10) if setup.device.type == "cuda" else (256, 1)
    found = {}
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("float32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = torch.randn(2, size, size, device=setup.device).to(dtype)
        multiply = partial(_multiply, a, b, rounds)
        multiply()
        found[name] = rounds * 2 * size**3 / seconds(multiply, setup.device) / 1e12
    torch.backends.cuda.matmul.allow_tf32 = False
    return {f"{name}, TFLOP/s": value for name, value in found.items()}


def _multiply(a: Tensor, b: Tensor, rounds: int) -> None:
    for _ in range(rounds):
        a @ b


def step(name: str, way: str, batch_size: int, setup: Setup) -> dict[str, Any]:
    """Time the step of the row `name`."""
    torch.backends.cudnn.benchmark = WAYS[way].tries_kernels
    if setup.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        return _step(_config(name, way, batch_size, setup), way, setup)
    finally:
        torch.backends.cudnn.benchmark = False
        if way in COMPILED:
            torch.compiler.reset()


def _config(name: str, way: str, batch_size: int, setup: Setup) -> Config:
    overrides = WAYS[way].overrides
    if setup.tiny:  # to compile takes long
        overrides = tuple(o for o in overrides if not o.startswith("train.compile"))
    return row(name, setup.tiny, *overrides, f"train.batch_size={batch_size}")


def _step(config: Config, way: str, setup: Setup) -> dict[str, Any]:
    device, batch_size = setup.device, config.train.batch_size
    variant, batch = build_variant(config, [], device), repeated_batch(config).to(device)
    with FlopCounterMode(display=False) as counter, uncompiled(config.train):
        scalars = variant.step(batch)
    begun = time.perf_counter()
    taken = timed_steps(variant, batch, setup)
    median = statistics.median(taken)
    flops = counter.get_total_flops()
    found = {
        "samples/s": batch_size / median,
        "ms": 1000 * median,
        "TFLOP/s": flops / median / 1e12,
        "peak": None,
        "memory_gib": (peak_memory(device) or 0) / 2**30,
        "GFLOP a sample": flops / batch_size / 1e9,
        "seconds until warm": time.perf_counter() - begun - sum(taken),
        "loss": float(scalars["loss/total"]),
    }
    peaks = [f["bf16, TFLOP/s"] for f in read_results(setup.output) if "bf16, TFLOP/s" in f]
    if peaks:
        found["peak"] = found["TFLOP/s"] / peaks[-1]
    return found


def timed_steps(variant: Variant, batch: PairBatch, setup: Setup) -> list[float]:
    """Seconds of each of some steps, after a few that are not timed."""
    fewest, most = (1, 1) if setup.tiny else (_MIN_STEPS, _MAX_STEPS)
    for _ in range(1 if setup.tiny else _WARM_UP):
        variant.step(batch)
    taken: list[float] = []
    while len(taken) < fewest or (sum(taken) < SECONDS and len(taken) < most):
        taken.append(seconds(partial(variant.step, batch), setup.device))
    return taken


def repeated_batch(config: Config) -> PairBatch:
    """A batch of two puppets that are repeated, since drawing many takes longer than a step."""
    two = first_batch(override_config(config, ["train.batch_size=2"]))
    times = config.train.batch_size // 2
    return two._replace(
        frames=two.frames.repeat(times, 1, 1, 1, 1),
        color_factors=two.color_factors.repeat(times, 1, 1),
        color_order=two.color_order.repeat(times, 1, 1),
    )


def profile_best(batch_size: int, setup: Setup) -> dict[str, Any]:
    """Profile FOMM's step in bf16; writes the kernels that take longest to profile.md."""
    config = _config(MODELS[0], "bf16", batch_size, setup)
    variant, batch = (
        build_variant(config, [], setup.device),
        repeated_batch(config).to(setup.device),
    )
    timed_steps(variant, batch, setup)
    run: Callable[[], object] = partial(variant.step, batch)
    return profile(run, setup.device, setup.output / "profile.md")


def loader(batch_size: int, setup: Setup) -> dict[str, Any]:
    """Share of FOMM's time that is spent waiting for packed clips, with a worker on every core but
    one.
    """
    with TemporaryDirectory() as folder:
        root = Path(folder) / "packed"
        size = (64, 64) if setup.tiny else (256, 256)
        _pack(root, size, *((2, 4) if setup.tiny else (8, 32)))
        workers = max(1, num_cores() - 1)
        keys = ["data.kind=clips", f"data.root={root}", f"data.num_workers={workers}"]
        keys += [f"train.batch_size={batch_size}", "data.repeats=10000"]
        config = row(MODELS[0], setup.tiny, *WAYS["bf16"].overrides, *keys)
        waiting, _ = time_waiting(config, setup.device.type, 2 if setup.tiny else 40)
    failed = [f"{waiting:.0%} of the time is spent waiting"] if waiting > 0.05 else []
    return {"workers": workers, "waiting": waiting, "failed": [] if setup.tiny else failed}


def _pack(root: Path, size: tuple[int, int], num_clips: int, num_frames: int) -> None:
    """Write packed puppets, as datasets.prepare would, as the splits train and test."""
    puppets = Puppets("train", num_clips, num_frames, size, 0, 1.0)
    with PackWriter(root / "train", size) as writer:
        for index in range(num_clips):
            name, part = f"clip{index}", root.parent / f"{index}"
            table = write_fragment(part, name, puppets.read(index, range(num_frames)), 95)
            writer.append(name, DEFAULT_FRAME_RATE, "", part, table)
        writer.finish()
    shutil.copytree(root / "train", root / "test")
