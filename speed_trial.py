"""What a device computes fast: precision and memory layout, found by timing small convolutions.

Names and flags of a processor do not tell: virtual machines and environment variables belie them.
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import nn

Precision = Literal["float32", "bf16", "fp16"]
HALF_DTYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}

_GAIN = 0.9  # a precision is fast if it takes at most so much of the time of float32,
_EMULATED = 1.5  # and emulated if it takes so much more
_CHANNELS = 64
_SIDES = (16, 64)  # of the maps: small ones show what is emulated, larger ones what is faster
_CLEAR = 3.0  # a ratio that needs no second look
_ROUNDS = 4


class Choice(NamedTuple):
    """How a device is to compute. reason: what was measured, or why nothing was."""

    precision: Precision
    reason: str

    def __str__(self) -> str:
        return f"{self.precision} ({self.reason})"


class _Setting(NamedTuple):
    """One way to compute."""

    precision: str
    channels_last: bool


def choose_precision(device: torch.device) -> Choice:
    """The fastest precision for training: bf16 where the device computes it fast, else float32;
    on CUDA before Ampere fp16.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        precision: Precision = "bf16" if major >= 8 else "fp16"
        return Choice(precision, f"CUDA capability {major}.{minor}")
    if device.type != "cpu":
        return Choice("float32", f"half precision is not tried on {device.type}")
    ratio = half_precision_ratio("bf16", device)
    return Choice("bf16" if ratio <= _GAIN else "float32", f"bf16 {_times(ratio)} here")


def is_emulated(precision: str, device: torch.device) -> bool:
    """Whether the device computes `precision` much slower than float32."""
    if precision not in HALF_DTYPES or device.type not in ("cpu", "cuda"):
        return False
    return half_precision_ratio(precision, device) >= _EMULATED


def emulation_warning(key: str, precision: str, device: torch.device) -> str | None:
    """One line where `precision`, asked for by the option or config key `key`, is emulated."""
    if not is_emulated(precision, device):
        return None
    ratio = half_precision_ratio(precision, device)
    return (
        f"warning: {key}: {precision} is emulated on this device, convolutions take {ratio:.1f} "
        "times as long as in float32; use auto or float32"
    )


def prefers_channels_last(precision: str, device: torch.device) -> tuple[bool, str]:
    """Whether channels-last memory is the faster layout, and what was measured."""
    if device.type != "cpu":
        return True, f"what {device.type} is made for"
    ratio = layout_ratio(precision, device)
    return ratio <= 1, f"channels_last {_times(ratio)} here"


@lru_cache
def half_precision_ratio(precision: str, device: torch.device) -> float:
    """Time of convolutions in `precision`, forward and backward, to that in float32."""
    return _ratio(_Setting(precision, True), _Setting("float32", True), device)


@lru_cache
def layout_ratio(precision: str, device: torch.device) -> float:
    """Time of convolutions in channels-last memory, forward and backward, to that in planar."""
    return _ratio(_Setting(precision, True), _Setting(precision, False), device)


def _times(ratio: float) -> str:
    """`ratio` in words."""
    return f"takes {ratio:.2g} times as long"


def _ratio(setting: _Setting, baseline: _Setting, device: torch.device) -> float:
    """Best time of `setting` to that of `baseline`; fractions of a second."""
    ratio = 1.0
    for side in _SIDES:
        best = [float("inf")] * 2
        trials = [_Trial(side, s, device) for s in (setting, baseline)]
        for trial in trials:
            trial.seconds()  # kernels are chosen
        for _ in range(_ROUNDS):
            best = [min(b, trial.seconds()) for b, trial in zip(best, trials, strict=True)]
            ratio = best[0] / best[1]
            if ratio > _CLEAR:
                return ratio
    return ratio


class _Trial:
    """A few layers as this project's networks have them, on maps of side `side`."""

    def __init__(self, side: int, setting: _Setting, device: torch.device) -> None:
        layout = torch.channels_last if setting.channels_last else torch.contiguous_format
        self._dtype = HALF_DTYPES.get(setting.precision)
        self._device = device
        convolutions = [nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1) for _ in range(2)]
        network = nn.Sequential(
            convolutions[0], nn.BatchNorm2d(_CHANNELS), nn.ReLU(), convolutions[1]
        )
        self._network = network.to(device).to(memory_format=layout)
        x = torch.ones(1, _CHANNELS, side, side, device=device)
        self._x = x.contiguous(memory_format=layout).requires_grad_()

    def seconds(self) -> float:
        """Of one forward and backward pass."""
        self._synchronize()
        began = time.perf_counter()
        enabled = self._dtype is not None
        with torch.autocast(self._device.type, dtype=self._dtype, enabled=enabled):
            y = self._network(self._x)
        y.backward(torch.ones_like(y))
        self._synchronize()
        return time.perf_counter() - began

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
