"""The training step: one update of all branches, and of the discriminator."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from branches.branch import StepContext, StepInputs, is_smallest
from branches.model import Model
from configs.schema import Config
from datasets.augmentation import jitter_colors, resize_and_crop
from datasets.pairs import PairBatch
from losses import LossTerm, Perceptual
from training.acceleration import begin_step
from training.adversary import Adversary
from training.optimization import Optimizer, autocast


class StepResult(NamedTuple):
    """Result of a training step.

    scalars: losses and statistics, by name, on the device.
    inputs: inputs of the last part of the batch, with the outputs of all branches; pictures are
        drawn from them.
    """

    scalars: dict[str, Tensor]
    inputs: StepInputs


class PreparedFrames(NamedTuple):
    """The frames that a step computes on, B x 3 x H x W in [0, 1] each; see `StepInputs`."""

    source: Tensor
    driving: Tensor
    recolored_driving: Tensor


def train_step(
    model: Model,
    adversary: Adversary | None,
    optimizer: Optimizer,
    perceptual: Perceptual,
    batch: PairBatch,
    context: StepContext,
    config: Config,
) -> StepResult:
    """Update all branches, and the discriminator, once from one batch.

    Both players step at the same time: the discriminator learns from the same predictions that the
    generator's loss is computed from. Gradients are accumulated over parts of
    `train.micro_batch` samples. The host never waits for the device, except with several processes
    on CUDA: in torch's SyncBatchNorm, and at the end of a backward pass that leaves a parameter
    unused, as before the start of a late part.
    """
    begin_step(config.train)
    parts = batch.split(config.train.micro_batch)
    with optimizer.guarded_buffers():
        rows = []  # scalars of each part; only the last part's inputs are kept
        draws = context.random.split(len(parts))
        for number, (part, random) in enumerate(zip(parts, draws, strict=True), start=1):
            frames = prepare_frames(
                part, config.train.channels_last is True, model.masks is not None
            )
            now = context._replace(random=random)
            result, losses = forward(model, adversary, perceptual, frames, now, config)
            optimizer.backward(losses, len(parts), is_last=number == len(parts))
            rows.append(torch.stack([value.float() for value in result.scalars.values()]))
        scalars = join_parts(list(result.scalars), torch.stack(rows))
        loss = scalars["loss/total"]
        if adversary is not None:
            loss = loss + scalars["discriminator_loss/total"]
        norms = optimizer.step(loss)
        scalars["gradient_norm"] = norms["model"]
        if adversary is not None:
            scalars["discriminator/gradient_norm"] = norms["discriminator"]
    return result._replace(scalars=scalars)


def join_parts(names: list[str], rows: Tensor) -> dict[str, Tensor]:
    """Scalars of a batch by name, from those of its parts: means, or minima by `is_smallest`.

    Args:
        rows: parts x names.
    """
    means, minima = rows.mean(dim=0).unbind(), rows.amin(dim=0).unbind()
    joined = zip(names, means, minima, strict=True)
    return {name: low if is_smallest(name) else mean for name, mean, low in joined}


def forward(
    model: Model,
    adversary: Adversary | None,
    perceptual: Perceptual,
    frames: PreparedFrames,
    context: StepContext,
    config: Config,
) -> tuple[StepResult, dict[str, Tensor]]:
    """Compute outputs, loss terms and statistics of all branches.

    Returns:
        The result of the step, and by player the loss that it minimizes.
    """
    scalars: dict[str, Tensor] = {}
    losses = {}
    with autocast(config.train.precision, frames.source.device):
        with torch.no_grad():  # constant in this step, and the same for all branches
            target_features = perceptual(frames.driving)
        inputs = StepInputs(*frames, perceptual, target_features, context)
        terms = {}
        for branch_name, branch in model.training_branches.items():
            output = branch(inputs)
            inputs = inputs.with_output(branch_name, output)
            for name, term in branch.loss_terms(inputs, output).items():
                terms[f"{branch_name}/{name}"] = term
            for name, value in branch.statistics(output).items():
                scalars[f"{branch_name}/{name}"] = value.detach()
        if adversary is not None:
            adversarial = adversary.discriminate(inputs)
            for name, term in adversary.generator_terms(adversarial).items():
                terms[f"adversarial/{name}"] = term
            of_discriminator = adversary.discriminator_terms(adversarial)
            for name, term in of_discriminator.terms.items():
                scalars[f"discriminator_loss/{name}"] = term.weighted.detach()
            for name, value in of_discriminator.statistics.items():
                scalars[f"discriminator/{name}"] = value.detach()
            losses["discriminator"] = total(of_discriminator.terms)
            scalars["discriminator_loss/total"] = losses["discriminator"].detach()
    for name, term in terms.items():
        scalars[f"loss/{name}"] = term.weighted.detach()
        scalars[f"unweighted/{name}"] = term.value.detach()
    losses["model"] = total(terms)
    scalars["loss/total"] = losses["model"].detach()
    # The features take much memory, and no picture needs them.
    return StepResult(scalars, inputs._replace(target_features=[])), losses


def total(terms: Mapping[str, LossTerm]) -> Tensor:
    """The sum of the weighted terms, which a player minimizes."""
    return torch.stack([term.weighted for term in terms.values()]).sum()


def prepare_frames(batch: PairBatch, channels_last: bool, recolor: bool = True) -> PreparedFrames:
    """Apply resize and crop, if the batch asks for them, and the two colour jitters to the frames.

    Source and driving frame share the first jitter. The recolored driving frame gets the second one
    instead; if `recolor` is false, as for a model without masks, it is the driving frame itself.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    frames = batch.frames.float() / 255
    if batch.placement is not None:
        frames = resize_and_crop(frames, batch.placement)
    shared, own = zip(batch.color_factors.unbind(1), batch.color_order.unbind(1), strict=True)
    jittered = jitter_colors(frames, *shared).unbind(1)
    source, driving = (frame.contiguous(memory_format=layout) for frame in jittered)
    if not recolor:
        return PreparedFrames(source, driving, driving)
    recolored_driving = jitter_colors(frames[:, 1:], *own).squeeze(1)
    return PreparedFrames(source, driving, recolored_driving.contiguous(memory_format=layout))
