"""Animate a source image by driving frames: encode the source once, then batch by batch."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from branches.motion import MotionBranch
from checkpoint import Checkpoint, CheckpointError, load_networks
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

Item = TypeVar("Item")


class EncodedSource(NamedTuple):
    """Everything that depends on the source alone (batch 1)."""

    image: Tensor
    keypoints: Keypoints
    features: Tensor


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class Animator:
    """The motion branch in evaluation mode on one device; frames go in and out as uint8."""

    def __init__(self, motion: MotionBranch, device: torch.device) -> None:
        self.motion = motion
        self.device = device

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: torch.device) -> Self:
        """The animator with the checkpoint's best weights (its moving average, if it has one)."""
        model = Model(checkpoint.config)
        load_networks(model, checkpoint.evaluation_networks, checkpoint.path)
        if "motion" not in model.branches:
            raise CheckpointError(f"{checkpoint.path}: was trained without the motion branch")
        motion = model.branches["motion"]
        assert isinstance(motion, MotionBranch)
        return cls(motion.eval().to(device), device)

    def to_device(self, frames: Frames) -> Tensor:
        """uint8 N x H x W x 3 -> float N x 3 x H x W in [0, 1] on the device."""
        # A copy, since images from Pillow are read-only.
        return torch.tensor(frames).to(self.device).movedim(-1, 1).float() / 255

    @torch.inference_mode()
    def encode(self, source: np.ndarray) -> EncodedSource:
        """Encode one source frame, uint8 H x W x 3."""
        image = self.to_device(source[None])
        return EncodedSource(
            image, self.motion.keypoint_detector(image), self.motion.generator.encode(image)
        )

    @torch.inference_mode()
    def predict(self, source: EncodedSource, keypoints: Keypoints) -> Tensor:
        """The source moved to each of B `keypoints`: B x 3 x H x W in [0, 1]."""
        batch = len(keypoints.value)
        motion = self.motion.dense_motion(
            source.image.expand(batch, -1, -1, -1),
            expand_keypoints(source.keypoints, batch),
            keypoints,
        )
        return self.motion.generator.decode(source.features.expand(batch, -1, -1, -1), motion)

    @torch.inference_mode()
    def animate(
        self,
        source: np.ndarray,
        driving: Iterable[np.ndarray],
        *,
        motion: Literal["relative", "absolute"] = "relative",
        adapt_scale: bool = False,
        batch_size: int = 8,
    ) -> Iterator[tuple[Frames, Tensor]]:
        """Move `source` as the driving frames move; memory does not grow with their number.

        Args:
            source: uint8 H x W x 3.
            driving: frames, uint8 H x W x 3 each.
            motion: `relative` puts the change since the first driving frame on the source's
                keypoints; `absolute` uses the driving keypoints themselves.
            adapt_scale: relative motion is scaled by the sizes of the two figures.

        Yields:
            A batch of driving frames as it came, and its predictions, B x 3 x H x W in [0, 1].

        Raises:
            UserError: source and driving frames differ in size.
        """
        encoded = self.encode(source)
        first: Keypoints | None = None
        scale = 1.0
        for batch in batched(driving, batch_size):
            frames = np.stack(batch)
            if frames.shape[1:] != source.shape:
                raise UserError(
                    f"the driving frames are {frames.shape[2]} x {frames.shape[1]} pixels, the "
                    f"source {source.shape[1]} x {source.shape[0]}; bring them to one size"
                )
            keypoints = self.motion.keypoint_detector(self.to_device(frames))
            if motion == "relative":
                if first is None:
                    first = first_keypoints(keypoints)
                    scale = movement_scale(encoded.keypoints, first) if adapt_scale else 1.0
                keypoints = relative_keypoints(encoded.keypoints, keypoints, first, scale)
            yield frames, self.predict(encoded, keypoints)
