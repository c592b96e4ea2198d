"""Every row's step on a CUDA device that is not there: devices, precisions, waits and copies.

tests/helpers/fake_cuda.py says what this proves; it says nothing about numbers.
"""

from unittest.mock import patch

import pytest
import torch

from branches.branch import StepContext
from branches.model import Model
from common.batch_random import BatchRandom
from configs.loading import override_config
from tests.helpers.factories import noise_batch, tiny_perceptual
from tests.helpers.fake_cuda import (
    CUDA,
    META,
    WaitsAndCopies,
    batch_on_cuda,
    draws_on,
    fake_cuda,
    move_to_cuda,
    steps_on_meta,
)
from tests.helpers.rows import SHIPPED, small
from training.acceleration import prepare_networks
from training.adversary import build_adversary
from training.optimization import Optimizer
from training.step import forward, prepare_frames, train_step

PRECISIONS = ("float32", "bf16", "fp16")
LATE = 20.0  # epochs; every part has started
# Rows of other sets are like those of vox, except for these.
OTHERS = (
    *("bair-fomm-adv", "bair-monkey-net", "fashion-fomm", "mgif-fomm", "mgif-fomm-adv"),
    *("mgif-tpsmm", "taichi-fomm-adv", "demo"),
)
DIFFERENT = [name for name in SHIPPED if name.startswith("vox") or name in OTHERS]
CASES = [(name, precision) for name in DIFFERENT for precision in PRECISIONS]
CASES += [(name, "bf16") for name in SHIPPED if name not in DIFFERENT]


def fake_forward(config):
    """The scalars of a forward pass on the fake device, what it waits for, and the losses."""
    model, adversary = Model(config).train(), build_adversary(config)
    perceptual = tiny_perceptual(config)
    prepare_networks(model, adversary, perceptual, config.train)
    batch = noise_batch(config)
    with fake_cuda():
        move_to_cuda(model, adversary, perceptual)
        batch = batch_on_cuda(batch)
        context = StepContext(LATE, draws_on(CUDA), host_random=0.0)
        with WaitsAndCopies() as waits:
            channels_last = config.train.channels_last
            frames = prepare_frames(batch, channels_last, model.masks is not None)
            result, losses = forward(model, adversary, perceptual, frames, context, config)
    return result.scalars, waits.found, losses


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_forward_and_losses_of_every_row(name, precision):
    config = override_config(small(name), [f"train.precision={precision}"])
    scalars, waits, losses = fake_forward(config)
    assert waits == []
    assert {value.device for value in scalars.values()} == {CUDA}
    assert losses.keys() == {"model"} | ({"discriminator"} if config.discriminator else set())
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


OPTIONS = (
    *("train.micro_batch=2", "train.clip_norm=1", "train.clip_window=2", "train.clip_ratio=1.01"),
    "data.augmentation.resize=[0.9, 1.1]",
)


def meta_step(config):
    """A whole step on META: its scalars, what it waits for, and the moments of the optimizer."""
    model, adversary = Model(config).train().to(META), build_adversary(config)
    adversary = adversary if adversary is None else adversary.to(META)
    perceptual = tiny_perceptual(config).to(META)
    prepare_networks(model, adversary, perceptual, config.train)
    batch = noise_batch(config).to(META)
    with steps_on_meta():
        optimizer = Optimizer(model, adversary, config, META)
        context = StepContext(LATE, draws_on(META), host_random=0.0)
        with WaitsAndCopies() as waits:
            result = train_step(model, adversary, optimizer, perceptual, batch, context, config)
    moments = [m for state in optimizer.algorithm.state.values() for m in state.values()]
    return result.scalars, waits.found, moments


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_whole_step_stays_on_its_device(name):
    scalars, waits, moments = meta_step(small(name))
    assert waits == []
    assert {value.device for value in scalars.values()} == {META}
    assert moments
    assert {moment.device for moment in moments} == {META}


@pytest.mark.parametrize("overrides", [OPTIONS, ("train.optimizer=sgd", "train.momentum=0.9")])
def test_a_whole_step_with_options_stays_on_its_device(overrides):
    assert meta_step(override_config(small("vox-fomm-adv"), overrides))[1] == []


def made_on_the_cpu(self, num_samples, *shape):
    """`BatchRandom.normal` with a fault: numbers are drawn on the CPU and copied."""
    return torch.randn((num_samples, *shape)).to(self.device)


def read_by_the_host(self, num_samples, *shape):
    """`BatchRandom.normal` with a fault: the host reads a number of the device."""
    drawn = torch.randn((num_samples, *shape), device=self.device)
    return drawn if drawn.isfinite().any() else -drawn


@pytest.mark.parametrize("fault", [made_on_the_cpu, read_by_the_host])
def test_faults_are_found(fault):
    config = override_config(small("vox-fomm"), ["train.precision=bf16"])
    with patch.object(BatchRandom, "normal", fault):
        for run in (lambda: fake_forward(config), lambda: meta_step(small("vox-fomm"))):
            try:
                waits = run()[1]
            except RuntimeError as error:  # without numbers there is nothing to decide by
                waits = [str(error)]
            assert waits
