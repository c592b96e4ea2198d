"""What the page's model can do."""

from collections.abc import Collection
from typing import NamedTuple

from animation.branch_animators import AnimatorName
from animation.mask_sources import MasksName
from branches.model import Model
from branches.motion.branch import MotionBranch, MotionMode
from common.errors import UserError


class Capabilities(NamedTuple):
    """The capabilities of a model.

    animators: its animators.
    masks: what can cut its figures out, the default first.
    has_painting: it can paint another background with the networks BGBase and BGRefine.
    modes: ways in which its motion branch moves a source, the default first; empty without one.
    has_keypoints: its motion branch has keypoints, which can be smoothed, as masks always can.
    has_scale: the scale of relative motion can be chosen.
    takes_several_sources: its motion branch takes several pictures of one figure.
    notes: one line for each thing that it cannot do, with the reason.
    """

    animators: tuple[AnimatorName, ...]
    masks: tuple[MasksName, ...]
    has_painting: bool
    modes: tuple[MotionMode, ...]
    has_keypoints: bool
    has_scale: bool
    takes_several_sources: bool
    notes: tuple[str, ...]


def find_capabilities(
    model: Model, untrained: Collection[str], age: str, masks: tuple[MasksName, ...]
) -> Capabilities:
    """Find out what a model can do.

    Args:
        masks: see `MaskSources.available`.
        untrained: parts whose training has not started; see `Checkpoint.untrained`.
        age: how long the model was trained, in words.

    Raises:
        UserError: the model cannot animate at all.
    """
    notes = []
    branches, motion = model.branches, model.motion
    animators: list[AnimatorName] = ["motion"] if motion is not None else []
    has_painting = "background" in branches and "background" not in untrained
    if "masks" in branches and "masks.refinement" not in untrained:
        animators.append("masks")
    elif "masks" in branches:
        notes.append(f"No animator masks: at {age} the refinement has not started.")
    if not animators:
        raise UserError(
            f"--checkpoint: at {age} the refinement has not started, so nothing can be animated; "
            "train on"
        )
    if motion is not None and not motion.has_keypoints:
        notes.append(describe_no_keypoints(motion))
    if not masks:
        notes.append(
            "Another background needs masks of yours: the checkpoint was trained without the mask "
            "branch, and no detector is installed that could cut the figure out."
        )
    if "background" not in branches:
        notes.append(
            "Another background is laid under the figure, not painted: the checkpoint was trained "
            "without the background branch."
        )
    elif not has_painting:
        notes.append(
            "Another background is laid under the figure, not painted: at "
            f"{age} the background branch has not started."
        )
    return Capabilities(
        tuple(animators),
        masks,
        has_painting,
        () if motion is None else motion.modes,
        motion is not None and motion.has_keypoints,
        motion is not None and not motion.always_adapts_scale,
        motion is not None and motion.takes_several_sources,
        tuple(notes),
    )


def describe_no_keypoints(motion: MotionBranch) -> str:
    """The line on a motion model without keypoints."""
    return (
        f"A motion model of kind {motion.kind} has no keypoints: the source takes the driving pose "
        "itself (absolute motion), without a reference frame or a scale, and only masks can be "
        "smoothed."
    )
