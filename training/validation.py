"""Validation during training: metrics on test clips, and pictures of the networks' outputs."""

from collections.abc import Iterator

import numpy as np
import torch

from animation.branch_animators import reconstruction_animators
from branches.branch import StepContext, StepInputs
from branches.model import Model
from branches.motion.branch import MotionMode
from configs.schema import LogConfig
from datasets.source import ClipSource
from evaluation.reconstruction import evaluate, evaluate_masks, spread
from losses import Perceptual
from media.visualization import titled_grid
from training.adversary import Adversary, evaluating


def validate_model(
    model: Model, clips: ClipSource, log: LogConfig, device: torch.device, batch_size: int
) -> dict[str, float]:
    """Reconstruct test `clips` with `model`, which is in evaluation mode, and measure the result.

    In a second stage the keypoints go through the network that it trains (motion avd).

    Returns:
        Metrics by name, with the overlap of the masks where the true figure is known.
    """
    num_clips, num_frames = log.num_validation_clips, log.num_validation_frames
    motion: MotionMode = "absolute" if model.second_stage is None else "avd"
    metrics = evaluate(
        reconstruction_animators(model, device, motion),
        clips,
        num_clips=num_clips,
        num_frames=num_frames,
        batch_size=batch_size,
    )
    if model.masks is not None:
        metrics |= evaluate_masks(
            model.masks,
            clips,
            device,
            threshold=model.mask_threshold,
            num_clips=num_clips,
            num_frames=num_frames,
        )
    return metrics


@torch.no_grad()
def run_branches(
    model: Model,
    clips: ClipSource,
    num_clips: int,
    device: torch.device,
    perceptual: Perceptual,
    context: StepContext,
) -> StepInputs:
    """Run the branches of `model` on the first and the middle frame of `num_clips` test clips.

    Returns:
        The inputs, with the outputs of all branches.
    """
    frames = []
    for clip in spread(len(clips.clips), num_clips):
        middle = clips.num_frames(clip) // 2
        frames.append(torch.from_numpy(clips.read(clip, [0, middle])))
    pairs = torch.stack(frames).movedim(-1, 2).to(device).float() / 255
    source, driving = pairs.unbind(1)
    inputs = StepInputs(source, driving, driving, perceptual, [], context)
    for name, branch in model.training_branches.items():
        inputs = inputs.with_output(name, branch(inputs))
    return inputs


@torch.no_grad()
def draw_grids(
    model: Model, adversary: Adversary | None, inputs: StepInputs, num_rows: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Draw a titled grid of pictures for each branch and for the discriminator.

    Yields:
        The name, and the grid as H x W x 3 uint8; at most `num_rows` samples are shown.
    """
    for name, branch in model.training_branches.items():
        columns = branch.pictures(inputs, getattr(inputs.outputs, name), num_rows)
        if columns:  # a branch that has not started has none
            yield name, titled_grid({title: x[:num_rows] for title, x in columns.items()})
    if adversary is not None:
        with evaluating(adversary):  # in training mode spectral norm would update its vectors
            columns = adversary.pictures(inputs, num_rows)
        yield "adversarial", titled_grid({title: x[:num_rows] for title, x in columns.items()})
