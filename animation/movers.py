"""Animate a source image by driving frames: encode the source once, then batch by batch."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from branches.masks import MaskBranch
from branches.motion import MotionBranch
from checkpoint import Checkpoint, load_networks
from datasets.source import Frames
from errors import UserError
from model import Model
from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import (
    expand_keypoints,
    first_keypoints,
    movement_scale,
    relative_keypoints,
)

AnimatorName = Literal["motion", "masks"]
ANIMATORS: tuple[AnimatorName, ...] = ("motion", "masks")

Item = TypeVar("Item")


class Mover(Protocol):
    """Who moves the source."""

    device: torch.device

    def start(self, source: Tensor) -> Callable[[Tensor], Tensor]:
        """Encode `source`, 1 x 3 x H x W in [0, 1].

        Returns:
            From driving frames, B x 3 x H x W, in order and at once or in parts, to the source
            moved by them: B x 3 x H x W.
        """
        ...


class EncodedSource(NamedTuple):
    """Everything of the motion branch that depends on the source alone (batch 1)."""

    image: Tensor
    keypoints: Keypoints
    features: Tensor


class MotionMover:
    """The motion branch, in evaluation mode.

    Args:
        motion: `relative` puts the change since the first driving frame on the source's
            keypoints; `absolute` uses the driving keypoints themselves.
        adapt_scale: relative motion is scaled by the sizes of the two figures.
    """

    def __init__(
        self,
        branch: MotionBranch,
        device: torch.device,
        *,
        motion: Literal["relative", "absolute"] = "relative",
        adapt_scale: bool = False,
    ) -> None:
        self.branch = branch
        self.device = device
        self.motion = motion
        self.adapt_scale = adapt_scale

    def start(self, source: Tensor) -> Callable[[Tensor], Tensor]:
        """See `Mover.start`."""
        encoded = self.encode(source)
        first: Keypoints | None = None
        scale = 1.0

        def move(driving: Tensor) -> Tensor:
            nonlocal first, scale
            keypoints = self.branch.keypoint_detector(driving)
            if self.motion == "relative":
                if first is None:
                    first = first_keypoints(keypoints)
                    scale = movement_scale(encoded.keypoints, first) if self.adapt_scale else 1.0
                keypoints = relative_keypoints(encoded.keypoints, keypoints, first, scale)
            return self.predict(encoded, keypoints)

        return move

    def encode(self, source: Tensor) -> EncodedSource:
        """Encode `source`, 1 x 3 x H x W in [0, 1]."""
        return EncodedSource(
            source, self.branch.keypoint_detector(source), self.branch.generator.encode(source)
        )

    def predict(self, source: EncodedSource, keypoints: Keypoints) -> Tensor:
        """The source moved to each of B `keypoints`: B x 3 x H x W in [0, 1]."""
        batch = len(keypoints.value)
        motion = self.branch.dense_motion(
            source.image.expand(batch, -1, -1, -1),
            expand_keypoints(source.keypoints, batch),
            keypoints,
        )
        return self.branch.generator.decode(source.features.expand(batch, -1, -1, -1), motion)


class MaskMover:
    """The mask branch, in evaluation mode.

    Args:
        same_figure: the driving frames show the source's own figure, as in reconstruction: its
            masks need no refinement (as published).
    """

    def __init__(
        self, branch: MaskBranch, device: torch.device, *, same_figure: bool = False
    ) -> None:
        self.branch = branch
        self.device = device
        self.same_figure = same_figure

    def start(self, source: Tensor) -> Callable[[Tensor], Tensor]:
        """See `Mover.start`."""
        source_mask = self.branch.mask_generator(source)

        def move(driving: Tensor) -> Tensor:
            images = source.expand(len(driving), -1, -1, -1)
            source_masks = source_mask.expand(len(driving), -1, -1, -1)
            target_mask = self.branch.mask_generator(driving)
            if not self.same_figure:
                target_mask = self.branch.animated_mask(images, source_masks, target_mask)
            return self.branch.generate(images, source_masks, target_mask)[1]

        return move


def load_model(checkpoint: Checkpoint, device: torch.device) -> Model:
    """The model with the checkpoint's best weights (its moving average, if it has one), in
    evaluation mode.
    """
    model = Model(checkpoint.config)
    load_networks(model.networks, checkpoint.evaluation_networks, checkpoint.path)
    return model.eval().to(device)


def build_mover(
    model: Model,
    device: torch.device,
    name: AnimatorName,
    *,
    motion: Literal["relative", "absolute"] = "relative",
    adapt_scale: bool = False,
) -> Mover:
    """The animator `name` for a driving clip of anybody.

    Raises:
        UserError: the model was trained without that branch.
    """
    branch = model.branches.get(name)
    if isinstance(branch, MotionBranch):
        return MotionMover(branch, device, motion=motion, adapt_scale=adapt_scale)
    if isinstance(branch, MaskBranch):
        return MaskMover(branch, device)
    found = ", ".join(model.branches)
    raise UserError(
        f"--animator {name}: the checkpoint was trained without the branch {name}; it has: {found}"
    )


def reconstruction_movers(model: Model, device: torch.device) -> dict[AnimatorName, Mover]:
    """Those that `model` has, set up for driving frames of the source's own clip."""
    movers: dict[AnimatorName, Mover] = {}
    for branch in model.branches.values():
        if isinstance(branch, MotionBranch):
            movers["motion"] = MotionMover(branch, device, motion="absolute")
        elif isinstance(branch, MaskBranch):
            movers["masks"] = MaskMover(branch, device, same_figure=True)
    return movers


def frames_to_tensor(frames: Frames, device: torch.device) -> Tensor:
    """uint8 N x H x W x 3 -> float N x 3 x H x W in [0, 1] on the device."""
    # A copy, since images from Pillow are read-only.
    return torch.tensor(frames).to(device).movedim(-1, 1).float() / 255


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@torch.inference_mode()
def animate(
    mover: Mover, source: np.ndarray, driving: Iterable[np.ndarray], batch_size: int = 8
) -> Iterator[tuple[Frames, Tensor]]:
    """Move `source` as the driving frames move; memory does not grow with their number.

    Args:
        source: uint8 H x W x 3.
        driving: frames, uint8 H x W x 3 each.

    Yields:
        A batch of driving frames as it came, and its predictions, B x 3 x H x W in [0, 1].

    Raises:
        UserError: source and driving frames differ in size.
    """
    move: Callable[[Tensor], Tensor] | None = None
    for batch in batched(driving, batch_size):
        frames = np.stack(batch)
        if frames.shape[1:] != source.shape:
            raise UserError(
                f"the driving frames are {frames.shape[2]} x {frames.shape[1]} pixels, the "
                f"source {source.shape[1]} x {source.shape[0]}; bring them to one size"
            )
        if move is None:
            move = mover.start(frames_to_tensor(source[None], mover.device))
        yield frames, move(frames_to_tensor(frames, mover.device))
