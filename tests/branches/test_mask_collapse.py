"""Collapsed masks recover with the mask prior and not without it, on frames of moving squares."""

import pytest
import torch
import torch.nn.functional as F

from branches.branch import StepContext, StepInputs
from branches.model import Model
from common.batch_random import BatchRandom
from metrics.masks import mask_iou
from modules.geometry import resize
from tests.helpers.factories import tiny_config, tiny_perceptual
from training.optimization import Optimizer
from training.step import total

SIDE = 9


def moving_squares(count, generator):
    """Pairs of frames with a yellow square that moves before a smooth background.

    Returns the frames, count x 2 x 3 x 32 x 32 in [0, 1], and the square's masks, count x 2 x 1 x
    32 x 32 bool.
    """
    still = torch.rand(count, 3, 8, 8, generator=generator)
    still = 0.6 * F.interpolate(still, (32, 32), mode="bilinear").unsqueeze(1)
    truth = torch.zeros(count, 2, 1, 32, 32, dtype=torch.bool)
    corners = torch.randint(6, 32 - 6 - SIDE, (count, 2, 2), generator=generator).tolist()
    for sample, places in enumerate(corners):
        for frame, (y, x) in enumerate(places):
            truth[sample, frame, :, y : y + SIDE, x : x + SIDE] = True
    yellow = torch.tensor([0.9, 0.8, 0.2]).view(3, 1, 1)
    return torch.where(truth, yellow, still), truth


class Masks:
    """The mask branch alone, trained on moving squares."""

    def __init__(self, prior):
        self.config = tiny_config(
            "motion=null",
            "discriminator=null",
            "background=null",
            "masks.losses.perceptual={}",
            "masks.losses.pixel=10",
            "masks.refinement.start_epoch=1",
            f"masks.prior.weight={prior}",
            "train.learning_rate=3e-3",
        )
        self.model, self.perceptual = Model(self.config).train(), tiny_perceptual(self.config)
        self.optimizer = Optimizer(self.model, None, self.config, torch.device("cpu"))
        self.branch = self.model.masks
        self.generator = torch.Generator().manual_seed(0)

    def start_with(self, logit):
        """Make all masks constant, with this logit at every pixel."""
        bias = self.branch.mask_generator.ref.bias
        torch.nn.init.constant_(bias, logit * self.config.masks.mask_generator.temperature)
        return self

    def start_inverted(self):
        """Train the mask generator to mark the background instead of the square."""
        for _ in range(100):
            frames, truth = moving_squares(8, self.generator)
            logits = self.branch.mask_generator.logits(frames[:, 0])
            background = ~F.max_pool2d(truth[:, 0].float(), 2).bool()[..., 3:-3, 3:-3]
            self.update(F.binary_cross_entropy_with_logits(logits, background.float()))
        return self

    def train(self, num_steps):
        for _ in range(num_steps):
            source, driving = moving_squares(8, self.generator)[0].unbind(1)
            context = StepContext(0, BatchRandom(self.generator), host_random=0)
            inputs = StepInputs(source, driving, driving, self.perceptual, [], context)
            self.update(total(self.branch.loss_terms(inputs, self.branch(inputs))))
        return self

    def update(self, loss):
        self.optimizer.backward({"model": loss})
        self.optimizer.step(loss)

    @torch.no_grad()
    def iou(self):
        frames, truth = moving_squares(16, self.generator)
        masks = resize(self.branch.mask_generator(frames[:, 0]), (32, 32)) > 0.5
        return mask_iou(masks, truth[:, 0]).mean().item()


@pytest.mark.parametrize(
    ("logit", "collapsed"), [(-30.0, 0.0), (30.0, SIDE**2 / 20**2)], ids=["black", "white"]
)
def test_collapsed_masks_recover_only_with_the_prior(logit, collapsed):
    """A white mask covers 20 x 20 pixels: its border of 6 pixels is always black."""
    assert Masks(prior=0).start_with(logit).train(100).iou() == pytest.approx(collapsed, abs=0.01)
    assert Masks(prior=1).start_with(logit).train(100).iou() > 0.45


def test_inverted_masks_recover_with_the_prior():
    masks = Masks(prior=1).start_inverted()
    assert masks.iou() < 0.05
    assert masks.train(100).iou() > 0.45
