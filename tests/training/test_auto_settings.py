"""`auto` in a config: what it becomes on a machine, and in a run that is resumed on another one."""

import pytest
import torch

from common import machine, speed_trial
from tests.helpers.factories import tiny_config
from training import auto_settings
from training.auto_settings import numerics, resolve

CPU = torch.device("cpu")
AUTO = ("train.precision=auto", "train.channels_last=auto", "data.num_workers=4")


@pytest.fixture(autouse=True)
def a_machine(monkeypatch):
    """A machine that computes bf16 fast, and channels-last memory slowly; tests may change it."""
    monkeypatch.setattr(speed_trial, "half_precision_ratio", lambda *_: 0.5)
    monkeypatch.setattr(speed_trial, "layout_ratio", lambda *_: 1.25)
    monkeypatch.setattr(machine, "num_cores", lambda: 2)
    monkeypatch.setattr(auto_settings, "num_cores", lambda: 2)


def without_units(monkeypatch):
    monkeypatch.setattr(speed_trial, "half_precision_ratio", lambda *_: 20.0)


def test_auto_is_replaced_and_explained():
    found = resolve(tiny_config(*AUTO), CPU, None)
    train = found.config.train
    assert (train.precision, train.channels_last) == ("bf16", False)
    assert found.config.data.num_workers == 1  # the tests run with one thread
    assert found.warnings == []
    assert found.line == (
        "bf16 (bf16 takes 0.5 times as long here), planar memory (channels_last takes 1.2 times "
        "as long here); 1 thread and 1 worker for data on 2 cores"
    )
    assert found.record == {
        "precision": "bf16",
        "precision_reason": "bf16 takes 0.5 times as long here",
        "channels_last": False,
        "channels_last_reason": "channels_last takes 1.2 times as long here",
        "num_threads": 1,
        "num_workers": 1,
    }


def test_settings_other_than_auto_stay(monkeypatch):
    config = tiny_config("train.precision=float32", "train.channels_last=true")
    assert resolve(config, CPU, None).config == config
    without_units(monkeypatch)
    config = tiny_config("train.precision=bf16", "train.channels_last=true")
    found = resolve(config, CPU, None)
    assert found.config == config
    assert found.warnings == [
        "warning: train.precision: bf16 is emulated on this device, convolutions take 20.0 times "
        "as long as in float32; use auto or float32"
    ]


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_resumed_run_goes_on_as_it_began(channels_last):
    """It stays in float32, although bf16 would be faster here."""
    before = {"precision": "float32", "channels_last": channels_last}
    found = resolve(tiny_config(*AUTO), CPU, before)
    assert numerics(found.config) == before
    assert found.warnings == []
    assert "as before" in found.line


@pytest.mark.parametrize("before", ["bf16", "fp16"])
def test_a_resumed_run_changes_where_it_would_be_emulated(monkeypatch, before):
    without_units(monkeypatch)
    so_far = {"precision": before, "channels_last": True}
    found = resolve(tiny_config(*AUTO), CPU, so_far)
    assert numerics(found.config) == {"precision": "float32", "channels_last": False}
    assert found.warnings == [
        f"train.precision: changes from {before}, in which this run was trained so far, to "
        "float32 (bf16 takes 20 times as long here)"
    ]


def test_a_resumed_run_with_another_precision_warns():
    so_far = {"precision": "bf16", "channels_last": True}
    found = resolve(tiny_config("train.precision=float32"), CPU, so_far)
    assert [line.split(" (")[0] for line in found.warnings] == [
        "train.precision: changes from bf16, in which this run was trained so far, to float32"
    ]


@pytest.mark.parametrize(
    ("other", "precision", "channels_last"),
    [(("float32", False), "float32", False), (("bf16", True), "bf16", False)],
)
def test_processes_that_differ_take_what_all_can(monkeypatch, other, precision, channels_last):
    """Precision and layout are agreed on separately."""
    answers = iter(other)
    monkeypatch.setattr(auto_settings.distributed, "gather", lambda own: [own, next(answers)])
    found = resolve(tiny_config(*AUTO), CPU, None)
    assert numerics(found.config) == {"precision": precision, "channels_last": channels_last}
    assert ("processes differ" in found.line) == (precision == "float32")
