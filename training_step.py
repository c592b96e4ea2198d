"""The training step: one update of all branches."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from branches.branch import StepInputs
from config import Config
from datasets.augmentation import jitter_colors
from datasets.pairs import PairBatch
from losses import Perceptual
from model import Model
from optimization import Optimizer, autocast


class StepResult(NamedTuple):
    """Scalars of a step, still on the device, and what its pictures are drawn from: the inputs of
    its last part, which hold the outputs of all branches.
    """

    scalars: dict[str, Tensor]
    inputs: StepInputs


class PreparedFrames(NamedTuple):
    """See `StepInputs`: B x 3 x H x W in [0, 1] each."""

    source: Tensor
    driving: Tensor
    recolored_driving: Tensor


def train_step(
    model: Model,
    optimizer: Optimizer,
    perceptual: Perceptual,
    batch: PairBatch,
    generator: torch.Generator,
    config: Config,
    epoch: int,
) -> StepResult:
    """One update of all branches from one batch; nothing here waits for the device.

    Gradients of `train.micro_batch` samples at a time are accumulated.
    """
    parts = batch.split(config.train.micro_batch)
    with optimizer.guarded_buffers():
        scalars = []  # of each part; of what else it made only the last is kept
        for part in parts:
            frames = prepare_frames(part, config.train.channels_last)
            result, loss = forward(model, perceptual, frames, generator, config, epoch)
            optimizer.backward(loss / len(parts))
            scalars.append(result.scalars)
        means = mean_scalars(scalars)
        means["gradient_norm"] = optimizer.step(means["loss/total"])
    return result._replace(scalars=means)


def forward(
    model: Model,
    perceptual: Perceptual,
    frames: PreparedFrames,
    generator: torch.Generator,
    config: Config,
    epoch: int,
) -> tuple[StepResult, Tensor]:
    """Outputs, loss terms and statistics of all branches, and the sum to minimize."""
    scalars: dict[str, Tensor] = {}
    with autocast(config.train.precision, frames.source.device):
        with torch.no_grad():  # a constant of this step, shared by all branches
            target_features = perceptual(frames.driving)
        outputs: dict[str, Any] = {}
        inputs = StepInputs(*frames, perceptual, target_features, generator, epoch, outputs)
        weighted = []
        for branch_name, branch in model.branches.items():
            outputs[branch_name] = branch(inputs)
            for name, term in branch.loss_terms(inputs, outputs[branch_name]).items():
                weighted.append(term.weighted)
                scalars[f"loss/{branch_name}/{name}"] = term.weighted.detach()
                scalars[f"unweighted/{branch_name}/{name}"] = term.value.detach()
            for name, value in branch.statistics(outputs[branch_name]).items():
                scalars[f"{branch_name}/{name}"] = value.detach()
    loss = torch.stack(weighted).sum()
    scalars["loss/total"] = loss.detach()
    # The features are large, and no picture needs them.
    return StepResult(scalars, inputs._replace(target_features=[])), loss


def mean_scalars(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each scalar over the parts of a batch, all in one operation."""
    rows = torch.stack([torch.stack([value.float() for value in part.values()]) for part in parts])
    return dict(zip(parts[0], rows.mean(dim=0).unbind(), strict=True))


def prepare_frames(batch: PairBatch, channels_last: bool) -> PreparedFrames:
    """The frames of `batch` after the colour jitter."""
    frames = batch.frames.float() / 255
    shared, own = zip(batch.color_factors.unbind(1), batch.color_order.unbind(1), strict=True)
    source, driving = jitter_colors(frames, *shared).unbind(1)
    recolored_driving = jitter_colors(frames[:, 1:], *own).squeeze(1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return PreparedFrames(
        *(x.contiguous(memory_format=layout) for x in (source, driving, recolored_driving))
    )
