"""Puts the figure of animated frames on another background."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from animation.edges import clean_edge
from animation.figure_masks import FigureMasks, FindMasks, ModelMasks
from animation.inpainting import HoleFiller
from branches.background import BackgroundBranch
from branches.model import Model
from branches.outputs import Swap
from common.errors import UserError

BackgroundType = Literal["same", "other"]
Compose = Literal["network", "alpha"]
Edge = Literal["plain", "clean"]

VISIBLE = 0.5  # a frame whose opacity is nowhere above this shows no figure


class SwappedFrames(NamedTuple):
    """B animated frames, cut out or on another background; pictures are B x 3 x H x W in [0, 1].

    alpha: opacity of the figure, B x 1 x H x W.
    foreground_mask: mask of the animated frame, B x 1 x h x w.
    background_mask: mask of the background picture, B x 1 x h x w; None without a background.
    base, refined: outputs of BGBase and BGRefine; None if the networks were not needed.
    result: the composed picture; None without a background.
    figure: the figure's colours, without the old background at its edge; None: those of the frames.
    """

    alpha: Tensor
    foreground_mask: Tensor
    background_mask: Tensor | None
    base: Tensor | None
    refined: Tensor | None
    result: Tensor | None
    figure: Tensor | None = None


class _StillBackground(NamedTuple):
    """A single background, 1 x 3 x H x W, with what was found out about it.

    mask: mask of its figure, 1 x 1 x h x w.
    filled: the background with the hole of its figure inpainted; None if that was not needed yet.
    """

    background: Tensor
    mask: Tensor
    filled: Tensor | None = None


class BackgroundSwapper:
    """Cuts the figure out of an animated frame and composes it with a background.

    A swapper serves one clip at a time: `restart` begins the next one.

    Args:
        background_type: `same`: the background is a picture like the training data, and the figure
            in it is removed; `other`: the background is used as it is.
        compose: `network`: BGBase and BGRefine paint the result; `alpha`: the cut-out figure is
            laid over the background. If the background's own figure must be removed, `alpha` uses
            BGRefine's picture in its place, or inpainting without that network.
        figure_masks: masks of the animated frames; None: the model's own.
        background_masks: masks of the backgrounds; None: the model's own.
        edge: `clean`: where `alpha` lays the figure over the background, the old background is
            removed from the colours of the figure's edge.
        use_networks: False if the model's background branch has not been trained.

    Raises:
        UserError: the model lacks a branch that is needed; names the remedy.
    """

    def __init__(
        self,
        model: Model,
        background_type: BackgroundType,
        compose: Compose,
        *,
        figure_masks: FigureMasks | None = None,
        background_masks: FigureMasks | None = None,
        edge: Edge = "plain",
        use_networks: bool = True,
    ) -> None:
        own = ModelMasks.of(model)
        figure_masks = figure_masks or own
        background_masks = background_masks or own
        if figure_masks is None or (background_type == "same" and background_masks is None):
            raise UserError(
                "--background: the checkpoint was trained without the mask branch, so no figure "
                "can be cut out; use --masks person, or train with the sections masks and "
                "background (vox.yaml)"
            )
        self.networks: BackgroundBranch | None = None
        if compose == "network" or (background_type == "same" and use_networks):
            self.networks = model.background
            if compose == "network" and self.networks is None:
                raise UserError(
                    "--compose network: the checkpoint was trained without the background branch; "
                    "use --compose alpha, or train with the section background"
                )
        self.figure_masks = figure_masks
        self.background_masks = background_masks
        self.background_type = background_type
        self.compose = compose
        self.edge = edge
        self._mask_scale = 1.0 if model.masks is None else model.masks.mask_generator.scale
        self._filler = HoleFiller()
        self.restart()

    def restart(self) -> None:
        """Begin a clip: the next frames are its first."""
        self._find = self.figure_masks.start()
        self._find_in_background: FindMasks | None = None
        if self.background_type == "same" and self.background_masks is not None:
            self._find_in_background = self.background_masks.start()
        self._still: _StillBackground | None = None  # the last single background
        self._num_frames = 0
        self._num_empty: Tensor | int = 0  # a tensor once there are frames: no waiting for it

    @property
    def inpaints(self) -> bool:
        """Whether holes in the background are inpainted, since there is no network for them."""
        return self.background_type == "same" and self.networks is None

    @property
    def remarks(self) -> list[str]:
        """Lines for the user on the frames of this clip so far."""
        num_empty = int(self._num_empty)
        if num_empty == 0:
            return []
        return [
            f"{self.figure_masks.name}: no figure in {num_empty} of {self._num_frames} frames; "
            "other --masks may find it"
        ]

    def mask_of_source(self, source: Tensor) -> Tensor | None:
        """The mask, 1 x 1 x h x w, of the source, 1 x 3 x H x W; None if masks are given."""
        if self.figure_masks.are_given:
            return None
        with torch.inference_mode():
            return self.figure_masks.start()(source)

    @torch.inference_mode()
    def cut_out(self, frames: Tensor) -> SwappedFrames:
        """Compute the masks of `frames`, B x 3 x H x W, for a transparent background."""
        mask, alpha = self._figure(frames)
        return SwappedFrames(alpha, mask, None, None, None, None, self._colours(frames, alpha))

    @torch.inference_mode()
    def swap(self, frames: Tensor, backgrounds: Tensor) -> SwappedFrames:
        """Put the figures of `frames` on `backgrounds`; both are B x 3 x H x W in [0, 1].

        A single background, 1 x 3 x H x W, is used for all frames. If it is the same tensor as the
        last one, its figure is not looked for again, unless its masks are given.
        """
        mask, alpha = self._figure(frames)
        backgrounds, background_mask = self._figures_behind(backgrounds, mask)
        painted = self._paint(frames, mask, backgrounds, background_mask)
        base, refined = (None, None) if painted is None else (painted.base, painted.refined)
        if self.compose == "network":
            return SwappedFrames(alpha, mask, background_mask, base, refined, refined)
        behind = self._empty_background(frames, backgrounds, background_mask, refined)
        figure = self._colours(frames, alpha)
        result = torch.lerp(behind, frames if figure is None else figure, alpha)
        return SwappedFrames(alpha, mask, background_mask, base, refined, result, figure)

    def _figure(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Masks, B x 1 x h x w, and opacities, B x 1 x H x W, of the figures in `frames`."""
        mask = self._find(frames)
        alpha = self.figure_masks.opacity(mask, (frames.shape[-2], frames.shape[-1]))
        is_empty = alpha.amax(dim=(1, 2, 3)) <= VISIBLE
        self._num_frames += len(frames)
        self._num_empty = self._num_empty + is_empty.sum()
        return mask, alpha

    def _colours(self, frames: Tensor, alpha: Tensor) -> Tensor | None:
        return clean_edge(frames, alpha) if self.edge == "clean" else None

    def _figures_behind(self, backgrounds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The backgrounds, 1 or B x 3 x H x W, and the masks of their figures, B x 1 x h x w; zero
        in the size of `mask` if figures are not removed.
        """
        if self._find_in_background is None or self.background_masks is None:
            return backgrounds, torch.zeros_like(mask)
        if self.background_masks.are_given:  # one is read for each frame
            backgrounds = backgrounds.expand(len(mask), -1, -1, -1)
            return backgrounds, self._find_in_background(backgrounds)
        if len(backgrounds) > 1:
            return backgrounds, self._find_in_background(backgrounds)
        if self._still is None or self._still.background is not backgrounds:
            self._still = _StillBackground(backgrounds, self._find_in_background(backgrounds))
        return backgrounds, self._still.mask.expand(len(mask), -1, -1, -1)

    def _paint(
        self, frames: Tensor, mask: Tensor, backgrounds: Tensor, background_mask: Tensor
    ) -> Swap | None:
        """The pictures by BGBase and BGRefine; None if they are not needed."""
        if self.networks is None:
            return None
        masks = (self._at_training_size(each, frames) for each in (mask, background_mask))
        frame_masks, background_masks = masks
        return self.networks.swap(
            frames, frame_masks, backgrounds.expand_as(frames), background_masks
        )

    def _at_training_size(self, mask: Tensor, frames: Tensor) -> Tensor:
        """`mask`, B x 1 x h x w, at the size that the networks were trained with."""
        height, width = (round(side * self._mask_scale) for side in frames.shape[-2:])
        if mask.shape[-2:] == (height, width):
            return mask
        return F.adaptive_avg_pool2d(mask, (height, width))

    def _empty_background(
        self, frames: Tensor, backgrounds: Tensor, background_mask: Tensor, refined: Tensor | None
    ) -> Tensor:
        """The backgrounds without their own figures, in the shape of `frames`."""
        whole = backgrounds.expand_as(frames)
        if self._find_in_background is None or self.background_masks is None:
            return whole
        still = self._still
        if still is not None and still.background is backgrounds and still.filled is not None:
            return still.filled.expand_as(frames)
        mask = background_mask[: len(backgrounds)]
        alpha = self.background_masks.opacity(mask, (frames.shape[-2], frames.shape[-1]))
        if refined is not None:
            return torch.lerp(whole, refined, alpha)
        filled = self._filler.fill(backgrounds, alpha)
        if still is not None and still.background is backgrounds:
            self._still = still._replace(filled=filled)
        return filled.expand_as(frames)
