"""Animators: encode a source image once, then move it by driving frames batch by batch."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Literal, NamedTuple, Protocol, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from animation.smoothing import FilterState, Smoothing, one_euro, smooth_keypoints
from branches.masks import MaskBranch
from branches.model import Model
from branches.motion.branch import MotionBranch, MotionMode
from common.errors import UserError
from media.frames import Frame, Frames
from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import (
    first_keypoints,
    movement_scale,
)

AnimatorName = Literal["motion", "masks"]
ANIMATORS: tuple[AnimatorName, ...] = get_args(AnimatorName)

Move = Callable[[Tensor], Tensor]  # from driving frames to predictions; see `BranchAnimator.start`
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class BranchAnimator(Protocol):
    """Interface of an animator: moves a source image by driving frames."""

    device: torch.device

    def start(self, source: Tensor, reference: Tensor | None = None) -> Move:
        """Encode `source`, 1 x 3 x H x W in [0, 1], and start a clip.

        Args:
            source: N x 3 x H x W for N pictures of one figure, if the model takes several.
            reference: the reference frame of relative motion, 1 x 3 x H x W: the driving frame for
                which the source does not move. None: the first driving frame. Masks and the other
                modes of motion have no reference frame and ignore it.

        Returns:
            A function from driving frames, B x 3 x H x W, to the source moved by them, in the same
            shape. It gets the frames in order, all at once or in parts. Frames for which memory did
            not suffice may be given again, in smaller parts.
        """
        ...


class Reference(NamedTuple):
    """Keypoints of the reference frame (batch 1), and the scale of relative motion."""

    keypoints: Keypoints
    scale: float


class MotionAnimator:
    """Animates with the motion branch, which must be in evaluation mode.

    Args:
        motion: `relative` adds the change since the reference frame to the source's keypoints;
            `absolute` uses the driving keypoints themselves; `avd` gives them the source's shape.
            None: the first mode of the model.
        adapt_scale: scale relative motion by the ratio of the figures' sizes in the source and in
            the reference frame; some models always do.
        smoothing: filter for the driving keypoints; None: no filter. It starts at the first driving
            frame; a reference frame given to `start` is not filtered.
        same_scene: the driving frames show the source's own scene, as in reconstruction: a model
            that knows the camera's motion applies it.
    """

    def __init__(
        self,
        branch: MotionBranch,
        device: torch.device,
        *,
        motion: MotionMode | None = None,
        adapt_scale: bool = False,
        smoothing: Smoothing | None = None,
        same_scene: bool = False,
    ) -> None:
        self.branch = branch
        self.device = device
        self.motion = motion or branch.modes[0]
        self.adapt_scale = adapt_scale or branch.always_adapts_scale
        self.smoothing = smoothing
        self.same_scene = same_scene

    def start(self, source: Tensor, reference: Tensor | None = None) -> Move:
        """See `BranchAnimator.start`."""
        encoded = self.branch.encode(source)
        points, origin = encoded.keypoints, None
        if reference is not None and self.motion == "relative":
            origin = self.make_reference(points, self.branch.detect(reference))
        filtered: FilterState | None = None

        def move(driving: Tensor) -> Tensor:
            nonlocal origin, filtered
            after = filtered
            pose = self.branch.detect(driving)
            if self.smoothing is not None:
                pose, after = smooth_keypoints(pose, self.smoothing, filtered)
            if self.motion == "relative":
                assert points is not None, "build_animator refuses it"
                if origin is None:
                    origin = self.make_reference(points, first_keypoints(pose))
                pose = self.branch.relative_pose(points, pose, *origin)
            elif self.motion == "avd":
                assert points is not None, "build_animator refuses it"
                pose = self.branch.disentangled_pose(points, pose)
            prediction = self.branch.predict(encoded, pose, driving if self.same_scene else None)
            filtered = after  # not before: if memory did not suffice, these frames come again
            return prediction

        return move

    def make_reference(self, source: Keypoints | None, keypoints: Keypoints) -> Reference:
        """The reference of relative motion, given its frame's `keypoints` (batch 1)."""
        assert source is not None, "build_animator refuses relative motion without keypoints"
        scale = movement_scale(source, keypoints) if self.adapt_scale else 1.0
        return Reference(keypoints, scale)


class MaskAnimator:
    """Animates with the mask branch, which must be in evaluation mode.

    Args:
        same_figure: the driving frames show the source's own figure, as in reconstruction, so that
            its masks need no refinement (as published).
        smoothing: filter for the driving masks, before their refinement; None: no filter.
    """

    def __init__(
        self,
        branch: MaskBranch,
        device: torch.device,
        *,
        same_figure: bool = False,
        smoothing: Smoothing | None = None,
    ) -> None:
        self.branch = branch
        self.device = device
        self.same_figure = same_figure
        self.smoothing = smoothing

    def start(self, source: Tensor, reference: Tensor | None = None) -> Move:
        """See `BranchAnimator.start`; `reference` is ignored."""
        source_mask = self.branch.mask_generator(source)
        filtered: FilterState | None = None

        def move(driving: Tensor) -> Tensor:
            nonlocal filtered
            after = filtered
            images = source.expand(len(driving), -1, -1, -1)
            source_masks = source_mask.expand(len(driving), -1, -1, -1)
            target_mask = self.branch.mask_generator(driving)
            if self.smoothing is not None:
                target_mask, after = one_euro(target_mask, self.smoothing, filtered)
            if not self.same_figure:
                target_mask = self.branch.animated_mask(images, source_masks, target_mask)
            prediction = self.branch.generate(images, source_masks, target_mask)[1]
            filtered = after  # not before: if memory did not suffice, these frames come again
            return prediction

        return move


def build_animator(
    model: Model,
    device: torch.device,
    name: AnimatorName,
    *,
    motion: MotionMode | None = None,
    adapt_scale: bool = False,
    smoothing: Smoothing | None = None,
) -> BranchAnimator:
    """Build the animator `name`, for driving clips of any figure.

    Args:
        motion: None: the default of the motion model.

    Raises:
        UserError: the model was trained without that branch, or its motion model cannot do that.
    """
    if name == "motion" and model.motion is not None:
        mode = choose_mode(model.motion, motion)
        assert smoothing is None or model.motion.has_keypoints, "check_motion refuses it"
        return MotionAnimator(
            model.motion, device, motion=mode, adapt_scale=adapt_scale, smoothing=smoothing
        )
    if name == "masks" and model.masks is not None:
        return MaskAnimator(model.masks, device, smoothing=smoothing)
    found = ", ".join(model.branches)
    raise UserError(
        f"--animator {name}: the checkpoint was trained without the branch {name}; it has: {found}"
    )


def choose_mode(branch: MotionBranch, asked_for: MotionMode | None) -> MotionMode:
    """The mode of motion that is asked for, or the default of the motion model.

    Raises:
        UserError: the model does not have it; says why, and what it has.
    """
    mode = asked_for or branch.modes[0]
    if mode not in branch.modes:
        reason = (
            "has no network for it (the section motion.avd of kind tpsmm)"
            if mode == "avd"
            else "has no keypoints, which it needs"
        )
        raise UserError(
            f"--motion {mode}: the motion model, of kind {branch.kind}, {reason}; use "
            f"{' or '.join(branch.modes)}"
        )
    return mode


def reconstruction_animators(
    model: Model, device: torch.device, motion: MotionMode = "absolute"
) -> dict[AnimatorName, BranchAnimator]:
    """The animators that `model` has, set up for driving frames of the source's own clip.

    Args:
        motion: mode of the motion branch; as published, reconstruction is absolute.
    """
    animators: dict[AnimatorName, BranchAnimator] = {}
    if model.motion is not None:
        animators["motion"] = MotionAnimator(model.motion, device, motion=motion, same_scene=True)
    if model.masks is not None:
        animators["masks"] = MaskAnimator(model.masks, device, same_figure=True)
    return animators


def frames_to_tensor(frames: Frames, device: torch.device) -> Tensor:
    """Convert frames, uint8 N x H x W x 3, to float N x 3 x H x W in [0, 1] on the device."""
    pixels = torch.tensor(frames)  # a copy, since images from Pillow are read-only
    if device.type == "cuda":
        pixels = pixels.pin_memory()  # otherwise the copy would wait for the device's other work
    return pixels.to(device, non_blocking=True).movedim(-1, 1).float() / 255


@torch.inference_mode()
def in_batches(
    compute: Callable[[Tensor], Result],
    frames: Iterable[Frame],
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[Frames, Result]]:
    """Call `compute` with at most `batch_size` frames at a time; memory does not grow with their
    number.

    If the device runs out of memory, the batch is given again in two halves, and the batch size
    stays halved. So state that `compute` keeps between calls must not change in a call that fails.

    Args:
        compute: a function of frames, B x 3 x H x W in [0, 1] on the device.
        frames: uint8 H x W x 3 each.

    Yields:
        A batch of frames, uint8 B x H x W x 3, and the result of `compute` for it.

    Raises:
        UserError: memory does not suffice for a single frame.
    """
    waiting = iter(frames)
    while batch := list(islice(waiting, batch_size)):
        stacked = np.stack(batch)
        result: Result | None = None
        with suppress(torch.OutOfMemoryError):
            result = compute(frames_to_tensor(stacked, device))
        if result is not None:
            yield stacked, result
            continue
        # Here the error and its traceback, which held tensors in memory, are gone.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        height, width = stacked.shape[1:3]
        if len(batch) == 1:
            raise UserError(
                f"{device}: out of memory with one frame of {width} x {height} pixels; end other "
                "programs on it, use smaller images, or --device cpu"
            )
        batch_size = len(batch) // 2
        waiting = chain(batch, waiting)
        logger.warning(
            "%s: out of memory with %d frames of %d x %d pixels at a time; going on with %d",
            *(device, len(batch), width, height, batch_size),
        )


def animate(
    animator: BranchAnimator,
    source: Frame,
    driving: Iterable[Frame],
    batch_size: int = 8,
    reference: Frame | None = None,
    more_sources: Sequence[Frame] = (),
) -> Iterator[tuple[Frames, Tensor]]:
    """Move `source` as the driving frames move; memory does not grow with their number.

    The source is encoded once, whatever the number of driving frames.

    Args:
        source: uint8 H x W x 3.
        driving: frames, uint8 H x W x 3 each.
        batch_size: largest number of frames at a time; see `in_batches`.
        reference: the reference frame of relative motion, uint8 H x W x 3; None: the first driving
            frame. See `BranchAnimator.start`.
        more_sources: more pictures of the source's figure, of the same size, for a model that takes
            several.

    Yields:
        A batch of driving frames, uint8 B x H x W x 3; its predictions, B x 3 x H x W in [0, 1].

    Raises:
        UserError: source and driving frames differ in size, or memory does not suffice for a single
            frame.
    """
    move: Move | None = None

    def animated(frames: Tensor) -> Tensor:
        nonlocal move
        _check_size("driving frames are", frames, source)
        if move is None:
            start = (
                None if reference is None else frames_to_tensor(reference[None], animator.device)
            )
            if start is not None:
                _check_size("reference frame is", start, source)
            sources = frames_to_tensor(np.stack((source, *more_sources)), animator.device)
            move = animator.start(sources, start)
        return move(frames)

    return in_batches(animated, driving, batch_size, animator.device)


def _check_size(what: str, frames: Tensor, source: Frame) -> None:
    height, width = frames.shape[-2:]
    if (height, width) != source.shape[:2]:
        raise UserError(
            f"the {what} {width} x {height} pixels, the source {source.shape[1]} x "
            f"{source.shape[0]}; bring them to one size"
        )
