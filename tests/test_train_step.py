"""Golden losses of a short run, and gradients accumulated over micro-batches."""

import pytest
import torch
from torch.testing import assert_close

from model import Model
from optimization import Optimizer
from tests.factories import noise_batch, tiny_config, tiny_perceptual
from training import train_step


class Run:
    def __init__(self, *overrides):
        self.config = tiny_config(*overrides)
        self.model = Model(self.config).train()
        self.optimizer = Optimizer(self.model, self.config, torch.device("cpu"))
        self.perceptual = tiny_perceptual(self.config)
        self.batch = noise_batch(self.config)
        self.generator = torch.Generator().manual_seed(0)

    def step(self):
        return train_step(
            self.model,
            self.optimizer,
            self.perceptual,
            self.batch,
            self.generator,
            self.config,
            epoch=0,
        )


# Loss terms, unweighted, of three steps on a fixed batch, in float32.
GOLDEN = {
    "perceptual": [2.81517, 2.68928, 2.59886],
    "equivariance_value": [0.167703, 0.139131, 0.193285],
    "equivariance_jacobian": [0.0931866, 0.0505991, 0.0928924],
}


def test_golden_losses():
    """Nothing that shapes the numbers may change silently; store new ones with the reason."""
    run = Run("train.learning_rate=2e-3")
    steps = [run.step().scalars for _ in range(3)]
    losses = {name: [step[f"unweighted/motion/{name}"].item() for step in steps] for name in GOLDEN}
    assert losses == {name: pytest.approx(values, rel=1e-3) for name, values in GOLDEN.items()}


def test_total_is_the_sum_of_the_weighted_terms():
    scalars = Run().step().scalars
    weighted = [v for n, v in scalars.items() if n.startswith("loss/") and n != "loss/total"]
    assert_close(scalars["loss/total"], torch.stack(weighted).sum())
    assert_close(scalars["loss/motion/perceptual"], 10 * scalars["unweighted/motion/perceptual"])
    assert {"motion/keypoint_spread", "gradient_norm"} <= scalars.keys()
    assert not any(value.requires_grad for value in scalars.values())


def test_same_run_twice_gives_the_same_numbers():
    first, second = Run(), Run()
    for _ in range(2):
        a, b = first.step().scalars, second.step().scalars
        assert all(torch.equal(a[name], b[name]) for name in a)


def gradients(run):
    """Of one step, before the update; BatchNorm in evaluation mode, so that samples are alone."""
    run.model.eval()
    seen = []
    run.optimizer.adam.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.clone() for p in run.optimizer.parameters)
    )
    scalars = run.step().scalars
    return seen, scalars


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_give_the_gradient_of_the_whole(size):
    # The random transform would differ from part to part, so its losses are off.
    off = ("motion.losses.equivariance_value=0", "motion.losses.equivariance_jacobian=0")
    whole, whole_scalars = gradients(Run(*off))
    parts, parts_scalars = gradients(Run(*off, f"train.micro_batch={size}"))
    reached = 0
    for a, b in zip(whole, parts, strict=True):
        assert_close(a, b, atol=1e-6, rtol=1e-3)
        reached += bool(a.any())
    assert reached > len(whole) / 2
    assert_close(whole_scalars["loss/total"], parts_scalars["loss/total"])
    assert_close(whole_scalars["gradient_norm"], parts_scalars["gradient_norm"])


def test_bf16_steps_stay_near_float32():
    plain, half = Run().step().scalars, Run("train.precision=bf16").step().scalars
    assert_close(half["loss/total"], plain["loss/total"], rtol=0.05, atol=0)
    assert half["loss/total"].dtype == torch.float32


def test_steps_reduce_the_loss():
    run = Run("train.learning_rate=2e-3")
    losses = [run.step().scalars["loss/motion/perceptual"].item() for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]
