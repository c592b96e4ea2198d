"""Finds the fastest precision and memory layout of a device by timing small convolutions.

The name and the flags of a processor are no guide: virtual machines and environment variables can
make them wrong.
"""

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import nn

Precision = Literal["float32", "bf16", "fp16"]
HALF_DTYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}

_GAIN = 0.9  # a precision is fast if its time is at most this part of the time in float32
_EMULATED = 1.5  # and emulated if its time is at least this many times that in float32
# Numbers in a feature map of a trial. Larger maps take too long to time; these take seconds on a
# slow CPU, which is a fraction of a training step with such maps.
_MAX_NUMBERS = 64 * 256 * 256
_CLEAR = 3.0  # a ratio above this is clear, and needs no further trial
_MIN_ROUNDS, _MAX_ROUNDS = 2, 4  # a single one may have been interrupted by another program
_SECONDS = 0.2  # no further round begins after this time


class Choice(NamedTuple):
    """A precision, and the reason for it: what was measured, or why nothing was."""

    precision: Precision
    reason: str

    def __str__(self) -> str:
        return f"{self.precision} ({self.reason})"


class Shape(NamedTuple):
    """Shape of the feature maps in a trial: batch x channels x side x side."""

    batch: int
    channels: int
    side: int


# Small maps show whether a precision is emulated, larger ones whether it is faster.
_PRECISION_SHAPES = (Shape(1, 64, 16), Shape(1, 64, 64))


class _Setting(NamedTuple):
    """A precision and a memory layout to be timed."""

    precision: str
    channels_last: bool


def choose_precision(device: torch.device) -> Choice:
    """Choose the fastest precision for training.

    That is bf16 where the device computes it fast, fp16 on CUDA before Ampere, and else float32.
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
    if precision not in HALF_DTYPES:
        return False
    if device.type == "cuda":  # no trial: to start the kernel of a small convolution takes longer
        return precision == "bf16" and torch.cuda.get_device_capability(device)[0] < 8
    return device.type == "cpu" and half_precision_ratio(precision, device) >= _EMULATED


def is_usable(precision: str, device: torch.device) -> bool:
    """Whether a run that began in `precision` on another device can continue in it on this one."""
    if precision == "float32":
        return True
    return device.type in ("cpu", "cuda") and not is_emulated(precision, device)


def emulation_warning(key: str, precision: str, device: torch.device) -> str | None:
    """Return a one-line warning if `precision` is emulated on the device; else None.

    `key` is the option or config key that asks for the precision.
    """
    if not is_emulated(precision, device):
        return None
    factor = ""
    if device.type == "cpu":
        ratio = half_precision_ratio(precision, device)
        factor = f", convolutions take {ratio:.1f} times as long as in float32"
    return f"warning: {key}: {precision} is emulated on this device{factor}; use auto or float32"


def prefers_channels_last(precision: str, device: torch.device, shape: Shape) -> tuple[bool, str]:
    """Whether channels-last memory is the faster layout, and the reason in words.

    Args:
        shape: of the largest feature maps. The result depends on it, differently on each processor.
    """
    if device.type != "cpu":
        return True, f"{device.type} is made for it"
    ratio = layout_ratio(precision, device, _shortened(shape))
    return ratio <= 1, f"channels_last {_times(ratio)} here"


def _shortened(shape: Shape) -> Shape:
    """Reduce the batch, then the side, of a `shape` that is too large for a trial."""
    batch, channels, side = shape
    while batch > 1 and batch * channels * side**2 > _MAX_NUMBERS:
        batch //= 2
    while batch * channels * side**2 > _MAX_NUMBERS:
        side //= 2
    return Shape(batch, channels, side)


@lru_cache
def half_precision_ratio(precision: str, device: torch.device) -> float:
    """Time of convolutions in `precision`, forward and backward, over that in float32."""
    settings = _Setting(precision, True), _Setting("float32", True)
    return _ratio(*settings, _PRECISION_SHAPES, device)


@lru_cache
def layout_ratio(precision: str, device: torch.device, shape: Shape) -> float:
    """Time of convolutions in channels-last memory, forward and backward, over that in planar."""
    return _ratio(_Setting(precision, True), _Setting(precision, False), (shape,), device)


def _times(ratio: float) -> str:
    """Put a ratio of times into words."""
    return f"takes {ratio:.2g} times as long"


def _ratio(
    setting: _Setting, baseline: _Setting, shapes: Sequence[Shape], device: torch.device
) -> float:
    """Best time of `setting` over that of `baseline`.

    The shapes are tried in order. The ratio is that of the last one, or of an earlier one where
    `setting` is clearly slower. It takes a fraction of a second, more on a slow CPU.
    """
    ratio, began = 1.0, time.perf_counter()
    for shape in shapes:
        best = [float("inf")] * 2
        trials = [_Trial(shape, s, device) for s in (setting, baseline)]
        for trial in trials:
            trial.seconds()  # the first call chooses kernels
        for number in range(1, _MAX_ROUNDS + 1):
            best = [min(b, trial.seconds()) for b, trial in zip(best, trials, strict=True)]
            ratio = best[0] / best[1]
            if number >= _MIN_ROUNDS and ratio > _CLEAR:
                return ratio
            if number >= _MIN_ROUNDS and time.perf_counter() - began > _SECONDS:
                break
    return ratio


class _Trial:
    """A small network with the kinds of layers that this project's networks have."""

    def __init__(self, shape: Shape, setting: _Setting, device: torch.device) -> None:
        layout = torch.channels_last if setting.channels_last else torch.contiguous_format
        self._dtype = HALF_DTYPES.get(setting.precision)
        self._device = device
        width = shape.channels
        network = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
        )
        self._network = network.to(device).to(memory_format=layout)
        x = torch.ones(shape.batch, width, shape.side, shape.side, device=device)
        self._x = x.contiguous(memory_format=layout).requires_grad_()

    def seconds(self) -> float:
        """Seconds that one forward and backward pass takes; on a CPU those of this process, which
        other programs on the same cores do not lengthen.
        """
        clock = time.process_time if self._device.type == "cpu" else time.perf_counter
        self._synchronize()
        began = clock()
        enabled = self._dtype is not None
        with torch.autocast(self._device.type, dtype=self._dtype, enabled=enabled):
            y = self._network(self._x)
        y.backward(torch.ones_like(y))
        self._synchronize()
        return clock() - began

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
