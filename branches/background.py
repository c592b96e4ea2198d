"""The background branch: puts the figure of one frame on the background of another."""

import torch
from torch import Tensor

from branches.branch import Branch, StepInputs, reconstruction_terms
from branches.masks import num_halvings
from branches.outputs import BackgroundOutput, Swap
from configs.schema import BackgroundConfig
from losses import LossTerm, used_layers
from modules.geometry import resize
from modules.high_resolution_generator import HighResolutionGenerator
from modules.low_resolution_generator import LowResolutionGenerator


class BackgroundBranch(Branch[BackgroundOutput]):
    """The networks BGBase and BGRefine, which have the architectures of L and H with other inputs.

    Both get detached masks, and BGRefine gets BGBase's picture detached. So the two learn
    independently, and no gradient of this branch reaches another branch.
    """

    def __init__(self, config: BackgroundConfig, mask_scale: float) -> None:
        super().__init__()
        base, refine = config.bg_base, config.bg_refine
        self.threshold = config.threshold
        self.soft = config.soft
        self.inputs = frozenset(config.inputs)
        self.foreign_probability = config.foreign_probability
        self.hole_probability = config.hole_probability
        self.losses = config.losses
        self.bg_base = LowResolutionGenerator(
            in_channels=len(self.inputs) + 3 + 3,
            width=base.width,
            max_width=base.max_width,
            num_up_blocks=num_halvings(mask_scale),
            num_res_blocks=base.num_res_blocks,
        )
        self.bg_refine = HighResolutionGenerator(
            in_channels=3 + len(self.inputs) + 3 + 3,
            width=refine.width,
            max_width=refine.max_width,
            num_blocks=refine.num_blocks,
            # As `swap` gives them: figure and scenery last, and BGBase's picture first.
            shown=[*([-2, -1] if refine.skip else []), *([0] if refine.skip_base else [])],
        )

    def binarize(self, foreground_mask: Tensor) -> Tensor:
        """The binary mask b: 1 where `foreground_mask` is above the threshold, else 0."""
        return (foreground_mask > self.threshold).to(foreground_mask.dtype)

    def inside(self, foreground_mask: Tensor) -> Tensor:
        """What is cut out of each pixel: 0 or 1, or `foreground_mask` itself if `soft`."""
        return foreground_mask if self.soft else self.binarize(foreground_mask)

    def seen_masks(self, frame_mask: Tensor, background_mask: Tensor) -> list[Tensor]:
        """The masks that both networks see, in the order of their input channels."""
        masks = {"source_mask": background_mask, "driving_mask": frame_mask}
        return [mask for name, mask in masks.items() if name in self.inputs]

    def swap(
        self, frame: Tensor, frame_mask: Tensor, background: Tensor, background_mask: Tensor
    ) -> Swap:
        """Put the figure of `frame` (Y) on the background of `background` (X).

        Args:
            frame, background: B x 3 x H x W in [0, 1].
            frame_mask, background_mask: foreground masks of the two, B x 1 x h x w in [0, 1]; a
                background mask of zeros means that there is no figure to remove.
        """
        frame_mask, background_mask = frame_mask.detach(), background_mask.detach()
        small = (frame_mask.shape[-2], frame_mask.shape[-1])
        size = (frame.shape[-2], frame.shape[-1])
        inside, outside = self.inside(frame_mask), 1 - self.inside(background_mask)
        seen = self.seen_masks(frame_mask, background_mask)
        base = self.bg_base(
            *seen,
            resize(frame, small) * inside,
            resize(background, small) * outside,
        )
        figure = frame * resize(inside, size)
        scenery = background * resize(outside, size)
        refined = self.bg_refine(
            base.detach(),  # BGRefine's loss must not train BGBase
            *(resize(mask, size) for mask in seen),
            figure,
            scenery,
        )
        return Swap(base, refined, figure, scenery)

    def forward(self, inputs: StepInputs) -> BackgroundOutput:
        masks = inputs.outputs.masks
        assert masks is not None, "the model runs the mask branch first"
        driving_mask = masks.driving_mask.detach()
        share = self.binarize(driving_mask).mean()
        if "background" in inputs.context.waiting:
            return BackgroundOutput(None, inputs.driving, False, share)
        background, background_mask = inputs.source, masks.source_mask.detach()
        target, own_target = inputs.driving, self.training and self.foreign_probability > 0
        if self.training and self.hole_probability > 0:
            chosen = inputs.context.random.uniform(len(background), 1, 1, 1)
            both_figures = torch.maximum(background_mask, background_mask.roll(1, dims=0))
            holes = chosen < self.hole_probability
            background_mask = torch.where(holes, both_figures, background_mask)
        if own_target:
            chosen = inputs.context.random.uniform(len(background), 1, 1, 1)
            foreign = chosen < self.foreign_probability
            background = torch.where(foreign, background.roll(1, dims=0), background)
            background_mask = torch.where(foreign, 0.0, background_mask)
            alpha = resize(driving_mask, (target.shape[-2], target.shape[-1]))
            composite = alpha * target + (1 - alpha) * background
            target = torch.where(foreign, composite, target)
        swap = self.swap(inputs.driving, driving_mask, background, background_mask)
        return BackgroundOutput(swap, target, own_target, share)

    def loss_terms(self, inputs: StepInputs, output: BackgroundOutput) -> dict[str, LossTerm]:
        if output.swap is None:
            return {}
        features = inputs.target_features
        if output.own_target:
            with torch.no_grad():
                features = inputs.perceptual(output.target, used_layers(self.losses.perceptual))
        return reconstruction_terms(
            {"base_": output.swap.base, "refine_": output.swap.refined},
            output.target,
            features,
            inputs.perceptual,
            self.losses,
        )

    def statistics(self, output: BackgroundOutput) -> dict[str, Tensor]:
        """The share of pixels that count as figure; near 0 or 1 there is nothing to swap."""
        return {"foreground_share": output.foreground_share}

    def pictures(
        self, inputs: StepInputs, output: BackgroundOutput, num_rows: int
    ) -> dict[str, Tensor]:
        swap = output.swap
        if swap is None:
            return {}
        return {
            "foreground": swap.foreground,
            "background": swap.background,
            "BGBase": swap.base,
            "BGRefine": swap.refined,
            "target": output.target,
        }
