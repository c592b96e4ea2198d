"""Puts the figure of animated frames on another background."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from branches.background import BackgroundBranch
from branches.model import Model
from common.errors import UserError
from modules.geometry import resize

BackgroundType = Literal["same", "other"]
Compose = Literal["network", "alpha"]

RAMP = 0.25  # alpha rises from 0 to 1 over mask values this far below to above the threshold


class SwappedFrames(NamedTuple):
    """B animated frames, cut out or on another background; pictures are B x 3 x H x W in [0, 1].

    alpha: opacity of the figure, B x 1 x H x W.
    foreground_mask: mask of the animated frame, B x 1 x h x w.
    background_mask: mask of the background picture, B x 1 x h x w; None without a background.
    base, refined: outputs of BGBase and BGRefine; None if the networks were not needed.
    result: the composed picture; None without a background.
    """

    alpha: Tensor
    foreground_mask: Tensor
    background_mask: Tensor | None
    base: Tensor | None
    refined: Tensor | None
    result: Tensor | None


class BackgroundSwapper:
    """Cuts the figure out of an animated frame and composes it with a background.

    Args:
        background_type: `same`: the background is a picture like the training data, and the figure
            in it is removed; `other`: the background is used as it is.
        compose: `network`: BGBase and BGRefine paint the result; `alpha`: the cut-out figure is
            laid over the background. If the background's own figure must be removed, `alpha` uses
            BGRefine's picture in its place.

    Raises:
        UserError: the model lacks a branch that is needed; names the remedy.
    """

    def __init__(self, model: Model, background_type: BackgroundType, compose: Compose) -> None:
        if model.masks is None:
            raise UserError(
                "--background: the checkpoint was trained without the mask branch, so no figure "
                "can be cut out; train with the sections masks and background (vox.yaml)"
            )
        self.networks: BackgroundBranch | None = None
        if compose == "network" or background_type == "same":
            if model.background is None:
                raise UserError(
                    "--background: the checkpoint was trained without the background branch; use "
                    "--compose alpha --background-type other, or train with the section background"
                )
            self.networks = model.background
        self.mask_generator = model.masks.mask_generator
        self.background_type = background_type
        self.compose = compose
        self.threshold = model.mask_threshold

    @torch.inference_mode()
    def cut_out(self, frames: Tensor) -> SwappedFrames:
        """Compute the masks of `frames`, B x 3 x H x W, for a transparent background."""
        mask = self.mask_generator(frames)
        return SwappedFrames(self._alpha(mask, frames), mask, None, None, None, None)

    @torch.inference_mode()
    def swap(self, frames: Tensor, backgrounds: Tensor) -> SwappedFrames:
        """Put the figures of `frames` on `backgrounds`; both are B x 3 x H x W in [0, 1].

        A single background, 1 x 3 x H x W, is used for all frames.
        """
        mask = self.mask_generator(frames)
        background_mask = torch.zeros_like(mask)
        if self.background_type == "same":
            background_mask = self.mask_generator(backgrounds).expand_as(mask)
        backgrounds = backgrounds.expand_as(frames)
        alpha = self._alpha(mask, frames)
        base = refined = None
        if self.networks is not None:
            painted = self.networks.swap(frames, mask, backgrounds, background_mask)
            base, refined = painted.base, painted.refined
        if self.compose == "network":
            result = refined
        else:
            behind = backgrounds
            if refined is not None:
                behind = torch.lerp(backgrounds, refined, self._alpha(background_mask, frames))
            result = torch.lerp(behind, frames, alpha)
        return SwappedFrames(alpha, mask, background_mask, base, refined, result)

    def _alpha(self, foreground_mask: Tensor, frames: Tensor) -> Tensor:
        """Compute the opacity of the figure at the size of `frames`.

        It rises smoothly from 0 to 1 around the threshold. The mask itself would not do: where it
        is less than 1, the figure would be see-through.
        """
        mask = resize(foreground_mask, (frames.shape[-2], frames.shape[-1]))
        half = min(RAMP, self.threshold, 1 - self.threshold)  # so 0 and 1 keep their values
        ramp = ((mask - self.threshold) / (2 * half) + 0.5).clamp(0, 1)
        return ramp * ramp * (3 - 2 * ramp)
