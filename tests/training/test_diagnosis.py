"""If memory runs out, one line says what to set."""

import pytest
import torch

from common import speed_trial
from common.errors import UserError
from tests.helpers.factories import tiny_config
from training.diagnosis import memory_advice


@pytest.mark.parametrize(
    ("overrides", "num_samples", "advice"),
    [
        (["train.batch_size=36"], 36, "36 samples at a time; set train.micro_batch=18, or"),
        (["train.batch_size=15"], 15, "15 samples at a time; set train.micro_batch=5, or"),
        (
            ["train.batch_size=12", "train.micro_batch=4", "train.precision=bf16"],
            12,
            "4 samples at a time; set train.micro_batch=2",
        ),
        (
            ["train.batch_size=4", "train.micro_batch=1", "train.precision=bf16"],
            4,
            "1 sample at a time; set data.image_size smaller than 32 x 32",
        ),
    ],
)
def test_running_out_of_memory_says_what_to_set(overrides, num_samples, advice, monkeypatch):
    monkeypatch.setattr(speed_trial, "half_precision_ratio", lambda *_: 0.5)
    with pytest.raises(UserError) as caught, memory_advice(tiny_config(*overrides), num_samples):
        raise torch.OutOfMemoryError
    assert str(caught.value).startswith(f"out of memory with {advice}")
    assert ("train.precision=bf16" in str(caught.value)) == (
        "train.precision=bf16" not in overrides
    )


def test_bf16_is_not_advised_where_it_is_emulated():
    with pytest.raises(UserError) as caught, memory_advice(tiny_config(), 4):
        raise torch.OutOfMemoryError
    assert "bf16" not in str(caught.value)


def test_running_out_of_memory_on_the_cpu():
    with pytest.raises(UserError, match="out of memory"), memory_advice(tiny_config(), 4):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), memory_advice(tiny_config(), 4):
        torch.ones(2) @ torch.ones(3, 3)
