"""Put the animated figure on another background."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from branches.background import BackgroundBranch
from branches.model import Model
from common.errors import UserError
from modules.geometry import resize

BackgroundType = Literal["same", "other"]
Compose = Literal["network", "alpha"]

RAMP = 0.25  # alpha goes from 0 to 1 over mask values this far around the threshold


class SwappedFrames(NamedTuple):
    """Of B animated frames; pictures are B x 3 x H x W in [0, 1].

    alpha: B x 1 x H x W, the opacity of the figure.
    foreground_mask, background_mask: B x 1 x h x w; of the animated frame and of the background.
    base, refined: from BGBase and BGRefine; None where they were not needed.
    result: the composed picture; None where there is no background to compose with.
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
        background_type: `same` type of picture as the training data: its own figure is removed
            by its mask; `other`: taken as it is.
        compose: `network` paints the result with BGBase and BGRefine; `alpha` lays the cut-out
            figure over the background. Of the background's own figure, if it has to go, alpha
            uses what BGRefine paints in its place.

    Raises:
        UserError: the model lacks the branch that this needs; names the remedy.
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
        """Only the masks of `frames`, B x 3 x H x W: for a transparent background."""
        mask = self.mask_generator(frames)
        return SwappedFrames(self._alpha(mask, frames), mask, None, None, None, None)

    @torch.inference_mode()
    def swap(self, frames: Tensor, backgrounds: Tensor) -> SwappedFrames:
        """The figures of `frames` on `backgrounds`, B x 3 x H x W in [0, 1] both.

        One background, 1 x 3 x H x W, stands behind all of them.
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
        """The mask at the size of `frames`, feathered: smoothly from 0 to 1 around the threshold,
        so that a mask that is merely sure does not make the figure see-through.
        """
        mask = resize(foreground_mask, (frames.shape[-2], frames.shape[-1]))
        half = min(RAMP, self.threshold, 1 - self.threshold)  # 0 and 1 stay what they are
        ramp = ((mask - self.threshold) / (2 * half) + 0.5).clamp(0, 1)
        return ramp * ramp * (3 - 2 * ramp)
