"""A profile of a call on the device: kernels, their kinds, and the time without any."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from benchmarks.tables import markdown_table
from benchmarks.training_steps import seconds
from common.safe_paths import printable

NUM_CALLS: Final = 3
NUM_KERNELS: Final = 20
# Parts of kernels' names, by kind; the first kind that fits counts.
KINDS: Final = {
    "convolutions": ("conv", "cudnn", "xmma", "gemm", "cutlass", "winograd", "wgrad", "dgrad"),
    "normalization": ("norm",),
    "copies": ("memcpy", "memset", "copy", "nchwtonhwc", "nhwctonchw"),
    "warps and resizing": ("grid_sampl", "upsample", "interpolate", "pad", "pool"),
    "optimizer": ("adam", "multi_tensor", "foreach"),
    "pointwise and sums": ("elementwise", "reduce", "triton", "add", "mul"),
}


def profile(run: Callable[[], object], device: torch.device, path: Path) -> dict[str, Any]:
    """Profile some calls of `run` and write the longest kernels to `path`.

    Returns:
        Shares of the time of a call that is not profiled: of each kind of kernel, and idle, in
        which the device has no kernel (on one stream).
    """
    wall = min(seconds(run, device) for _ in range(NUM_CALLS))
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with torch.profiler.profile(activities=activities) as found:
        for _ in range(NUM_CALLS):
            run()
        if is_cuda:
            torch.cuda.synchronize(device)
    times: defaultdict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()
    for event in found.key_averages():
        if is_cuda and event.device_type != DeviceType.CUDA:
            continue
        taken = event.self_device_time_total if is_cuda else event.self_cpu_time_total
        times[event.key] += taken / 1e6 / NUM_CALLS
        calls[event.key] += event.count // NUM_CALLS
    rows = [
        {
            "kernel": printable(name[:90]).replace("|", "/"),
            "calls": str(calls[name]),
            "ms": f"{1000 * taken:.2f}",
            "share": f"{taken / wall:.1%}",
        }
        for name, taken in _longest(times)[:NUM_KERNELS]
    ]
    path.write_text(markdown_table(rows) + "\n", encoding="utf-8")
    kinds: defaultdict[str, float] = defaultdict(float)
    for name, taken in times.items():
        kinds[kind_of(name)] += taken / wall
    busy = sum(times.values()) / wall
    return {"ms": 1000 * wall, **dict(_longest(kinds)), "idle": max(0.0, 1 - busy)}


def _longest(times: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(times.items(), key=lambda item: item[1], reverse=True)


def kind_of(kernel: str) -> str:
    """The kind of a kernel, by its name."""
    name = kernel.lower()
    return next((k for k, parts in KINDS.items() if any(p in name for p in parts)), "others")
