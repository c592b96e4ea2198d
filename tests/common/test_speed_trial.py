"""Tests of timed trials: the ratio of two settings, and the choices that follow from it."""

import itertools

import pytest
import torch

from common import speed_trial
from common.speed_trial import Shape, half_precision_ratio, layout_ratio

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """Replace the timing: after the first call a trial's seconds follow from setting and side."""
    times, calls = {}, []

    class Trial:
        def __init__(self, shape, setting, device):
            self.key = (setting.precision, setting.channels_last, shape.side)
            self.taken = itertools.chain([99.0], itertools.repeat(times[self.key]))

        def seconds(self):
            calls.append(self.key)
            return next(self.taken)

    monkeypatch.setattr(speed_trial, "_Trial", Trial)
    half_precision_ratio.cache_clear()
    layout_ratio.cache_clear()
    yield times, calls
    half_precision_ratio.cache_clear()
    layout_ratio.cache_clear()


def test_the_larger_maps_decide(clock):
    """The best of several passes counts, after a first one that is not timed."""
    times, calls = clock
    times |= {("bf16", True, 16): 0.9, ("float32", True, 16): 1.0}
    times |= {("bf16", True, 64): 6.0, ("float32", True, 64): 8.0}
    assert half_precision_ratio("bf16", CPU) == 0.75
    assert calls[:4] == [("bf16", True, 16), ("float32", True, 16)] * 2  # taking turns
    assert half_precision_ratio("bf16", CPU) == 0.75
    assert len(calls) == 20  # a second call is not timed again


def test_small_maps_show_what_is_emulated(clock):
    """A clear result ends the trial, because large maps would take seconds."""
    times, calls = clock
    times |= {("bf16", True, 16): 20.0, ("float32", True, 16): 1.0}
    assert half_precision_ratio("bf16", CPU) == 20
    assert len(calls) == 6


def test_one_interruption_means_nothing(monkeypatch):
    """Another program may slow down one pass."""
    passes = {"bf16": iter([9.0, 50.0, *[1.0] * 99]), "float32": iter([9.0, *[2.0] * 99])}

    class Trial:
        def __init__(self, shape, setting, device):
            self.seconds = passes[setting.precision].__next__

    monkeypatch.setattr(speed_trial, "_Trial", Trial)
    half_precision_ratio.cache_clear()
    assert half_precision_ratio("bf16", CPU) == 0.5
    half_precision_ratio.cache_clear()


def test_a_slow_device_has_fewer_rounds(clock, monkeypatch):
    times, calls = clock
    for side in (16, 64):
        times |= {("bf16", True, side): 1.5, ("float32", True, side): 2.0}
    seconds = itertools.count(0, 5)
    monkeypatch.setattr(speed_trial.time, "perf_counter", lambda: next(seconds))
    assert half_precision_ratio("bf16", CPU) == 0.75
    assert len(calls) == 2 * (2 + 2 * 2)


def test_layout(clock):
    """The maps are as large as those of the run, or smaller if those take too long to time."""
    times, calls = clock
    times |= {("float32", True, 256): 1.1, ("float32", False, 256): 1.0}
    times |= {("float32", True, 64): 0.8, ("float32", False, 64): 1.0}
    large, small = Shape(40, 64, 256), Shape(8, 24, 64)
    slower = (False, "channels_last takes 1.1 times as long here")
    assert speed_trial.prefers_channels_last("float32", CPU, large) == slower
    assert {side for *_, side in calls} == {256}
    assert speed_trial.prefers_channels_last("float32", CPU, small)[0]
    assert speed_trial.prefers_channels_last("float32", torch.device("cuda"), large)[0]
    assert speed_trial._shortened(large) == (1, 64, 256)
    assert speed_trial._shortened(Shape(36, 64, 64)) == (9, 64, 64)
    assert speed_trial._shortened(Shape(2, 64, 512)) == (1, 64, 256)
    assert speed_trial._shortened(small) == small


@pytest.mark.parametrize(
    ("ratio", "chosen", "is_emulated"),
    [
        (0.5, "bf16", False),
        (0.95, "float32", False),
        (1.4, "float32", False),
        (20, "float32", True),
    ],
)
def test_choice_by_the_ratio(monkeypatch, ratio, chosen, is_emulated):
    monkeypatch.setattr(speed_trial, "half_precision_ratio", lambda *_: ratio)
    choice = speed_trial.choose_precision(CPU)
    assert str(choice) == f"{chosen} (bf16 takes {ratio:.2g} times as long here)"
    assert speed_trial.is_emulated("bf16", CPU) == is_emulated
    warning = speed_trial.emulation_warning("train.precision", "bf16", CPU)
    assert (warning is not None) == is_emulated
    assert not speed_trial.is_emulated("float32", CPU)


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), "fp16"), ((8, 0), "bf16")])
def test_cuda_by_its_capability(monkeypatch, capability, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert speed_trial.choose_precision(torch.device("cuda")).precision == chosen


@pytest.mark.parametrize(("capability", "is_emulated"), [((7, 5), True), ((8, 0), False)])
def test_what_cuda_emulates(monkeypatch, capability, is_emulated):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    cuda = torch.device("cuda")
    assert speed_trial.is_emulated("bf16", cuda) == is_emulated
    assert not speed_trial.is_emulated("fp16", cuda)
    assert speed_trial.is_usable("bf16", cuda) != is_emulated


def test_no_trial_on_other_devices():
    mps = torch.device("mps")
    assert speed_trial.choose_precision(mps).precision == "float32"
    assert speed_trial.is_usable("float32", mps)
    assert not speed_trial.is_usable("bf16", mps)


def test_a_real_trial():
    """On any processor both settings are timed, and equal settings are equally fast."""
    half_precision_ratio.cache_clear()
    assert 0.1 < half_precision_ratio("bf16", CPU) < 1000
    setting = speed_trial._Setting("float32", True)
    assert 0.2 < speed_trial._ratio(setting, setting, [Shape(1, 8, 32)], CPU) < 5
