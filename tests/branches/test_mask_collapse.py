"""Masks that have collapsed find back with the prior, and do not without it: squares that move."""

import pytest
import torch
import torch.nn.functional as F

from branches.branch import StepInputs
from metrics.masks import mask_iou
from model import Model
from modules.geometry import resize
from optimization import Optimizer
from tests.factories import tiny_config, tiny_perceptual, total

SIDE = 9


def moving_squares(count, generator):
    """Pairs of frames of a yellow square on a still, smooth background, and where it is:
    count x 2 x 3 x 32 x 32 and count x 2 x 1 x 32 x 32.
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


def iou_after(num_steps, first_logit, prior):
    """Of masks that start all alike, after training the branch with this weight of the prior."""
    config = tiny_config(
        "motion=null",
        "background=null",
        "masks.losses.perceptual={}",
        "masks.losses.pixel=10",
        "masks.refinement.start_epoch=1",
        f"masks.prior.weight={prior}",
        "train.learning_rate=3e-3",
    )
    model, perceptual = Model(config).train(), tiny_perceptual(config)
    optimizer = Optimizer(model, config, torch.device("cpu"))
    branch = model.branches["masks"]
    temperature = config.masks.mask_generator.temperature
    torch.nn.init.constant_(branch.mask_generator.ref.bias, first_logit * temperature)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        source, driving = moving_squares(8, generator)[0].unbind(1)
        inputs = StepInputs(source, driving, driving, perceptual, [], generator, 0, {})
        loss = total(branch.loss_terms(inputs, branch(inputs)))
        optimizer.backward(loss)
        optimizer.step(loss)
    frames, truth = moving_squares(16, generator)
    with torch.no_grad():
        masks = resize(branch.mask_generator(frames[:, 0]), (32, 32)) > 0.5
    return mask_iou(masks, truth[:, 0]).mean().item()


@pytest.mark.parametrize(
    ("first_logit", "collapsed"), [(-30.0, 0.0), (30.0, SIDE**2 / 20**2)], ids=["black", "white"]
)
def test_collapsed_masks_find_back_with_the_prior_alone(first_logit, collapsed):
    """A white mask is 20 x 20, for its border of 6 pixels."""
    assert iou_after(15, first_logit, prior=0) == pytest.approx(collapsed, abs=0.01)
    assert iou_after(100, first_logit, prior=1) > 0.45
