"""The mask branch: mask generator, refinement, low- and high-resolution generators (Image
Animation with Perturbed Masks, Shalev and Wolf, CVPR 2022).
"""

import math

from torch import Tensor

from branches.branch import Branch, StepInputs, reconstruction_terms
from branches.outputs import MaskOutput
from common.batch_random import BatchRandom
from configs.schema import MasksConfig
from losses import LossTerm, mask_prior_loss, picture_change, pixel_loss, weigh
from media.visualization import grey_to_rgb
from modules.geometry import resize
from modules.high_resolution_generator import HighResolutionGenerator
from modules.low_resolution_generator import LowResolutionGenerator
from modules.mask_generator import BORDER, MaskGenerator, mask_from_logits
from modules.mask_refinement import MaskRefinement
from modules.perturbation import perturb, shrink


class MaskBranch(Branch[MaskOutput]):
    """Redraws the source in the shape of a mask that is made from the driving frame.

    Only the loss of L and the prior train the mask generator: R and H get detached inputs.
    """

    def __init__(self, config: MasksConfig) -> None:
        super().__init__()
        generator, refinement = config.mask_generator, config.refinement
        low, high = config.low_resolution, config.high_resolution
        self.losses = config.losses
        self.prior = config.prior
        self.perturbation = config.perturbation
        self.mask_generator = MaskGenerator(
            width=generator.width,
            max_width=generator.max_width,
            num_blocks=generator.num_blocks,
            scale=generator.scale,
            temperature=generator.temperature,
            skips=generator.skips,
        )
        self.refinement = MaskRefinement(
            width=refinement.width,
            max_width=refinement.max_width,
            num_blocks=refinement.num_blocks,
            temperature=refinement.temperature,
        )
        self.low_resolution = LowResolutionGenerator(
            in_channels=3 + 1 + 1,
            width=low.width,
            max_width=low.max_width,
            num_up_blocks=num_halvings(generator.scale),
            num_res_blocks=low.num_res_blocks,
        )
        self.high_resolution = HighResolutionGenerator(
            in_channels=3 + 1 + 3 + 1,
            width=high.width,
            max_width=high.max_width,
            num_blocks=high.num_blocks,
        )

    def forward(self, inputs: StepInputs) -> MaskOutput:
        source_logits = self.mask_generator.logits(inputs.source)
        # From a recolored frame, so that the mask cannot carry the target's appearance.
        driving_logits = self.mask_generator.logits(inputs.recolored_driving)
        source_mask = mask_from_logits(source_logits)
        driving_mask = mask_from_logits(driving_logits)
        low, high = self.generate(inputs.source, source_mask, driving_mask)
        perturbed = refined = None
        if "masks.refinement" not in inputs.context.waiting:
            perturbed = self.perturbed_mask(driving_mask, inputs.context.random)
            # Detached: R must restore the masks as they are, not make them easier to restore.
            refined = self.refine(inputs.source, source_mask.detach(), perturbed)
        return MaskOutput(
            source_mask, driving_mask, source_logits, driving_logits, perturbed, refined, low, high
        )

    def generate(
        self, source: Tensor, source_mask: Tensor, target_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Low- and high-resolution predictions, B x 3 x H x W in [0, 1]: `source` in the shape of
        `target_mask`, B x 1 x h x w.
        """
        size = (source.shape[-2], source.shape[-1])
        low = self.low_resolution(self.downsample(source, source_mask), source_mask, target_mask)
        # Detached: H refines L's prediction; only L trains the mask generator.
        details = (source_mask.detach(), low.detach(), target_mask.detach())
        high = self.high_resolution(source, *(resize(x, size) for x in details))
        return low, high

    def refine(self, source: Tensor, source_mask: Tensor, perturbed_mask: Tensor) -> Tensor:
        """Apply R: reshape `perturbed_mask` to the source's figure, B x 1 x h x w in [0, 1]."""
        return self.refinement(self.downsample(source, source_mask), source_mask, perturbed_mask)

    def perturbed_mask(self, foreground_mask: Tensor, random: BatchRandom) -> Tensor:
        """Apply P as in training: change `foreground_mask`, B x 1 x h x w, at random, so that it
        looks like the mask of another figure.
        """
        settings = self.perturbation
        return perturb(
            foreground_mask,
            num_strips=settings.num_strips,
            pivots=(settings.pivots[0], settings.pivots[1]),
            scales=(settings.scales[0], settings.scales[1]),
            threshold=settings.threshold,
            noise=settings.noise,
            random=random,
        )

    def shrunk_mask(self, foreground_mask: Tensor) -> Tensor:
        """Apply P as in animation: threshold and scale the mask, without anything random."""
        settings = self.perturbation
        return shrink(foreground_mask, threshold=settings.threshold, scale=settings.animation_scale)

    def animated_mask(self, source: Tensor, source_mask: Tensor, driving_mask: Tensor) -> Tensor:
        """The target mask of a source that another figure drives, B x 1 x h x w: R(.., P(m(D)))."""
        return self.refine(source, source_mask, self.shrunk_mask(driving_mask))

    @staticmethod
    def downsample(image: Tensor, like: Tensor) -> Tensor:
        """Resize `image` to the size of the mask `like`."""
        return resize(image, (like.shape[-2], like.shape[-1]))

    def loss_terms(self, inputs: StepInputs, output: MaskOutput) -> dict[str, LossTerm]:
        terms = reconstruction_terms(
            {"low_": output.low_resolution, "high_": output.high_resolution},
            inputs.driving,
            inputs.target_features,
            inputs.perceptual,
            self.losses,
        )
        if output.refined_mask is not None:
            value = pixel_loss(output.refined_mask, output.driving_mask.detach())
            terms["refinement"] = weigh(value, self.losses.refinement)
        if self.prior.weight:
            size = (output.driving_mask.shape[-2], output.driving_mask.shape[-1])
            change = picture_change(inputs.source, inputs.driving, size)
            value = mask_prior_loss(
                output.source_logits,
                output.driving_logits,
                change[..., BORDER:-BORDER, BORDER:-BORDER] > self.prior.change_threshold,
                self.prior.changed_share,
            )
            terms["prior"] = weigh(value, self.prior.weight)
        return terms

    def statistics(self, output: MaskOutput) -> dict[str, Tensor]:
        """Scalars that show a collapse of the masks early: all black or white (mean near 0 or 1),
        grey (binariness near 0), or the same for every frame (movement near 0).
        """
        mask = output.driving_mask
        return {
            "mask_mean": mask.mean(),
            "mask_binariness": (2 * mask - 1).abs().mean(),
            "foreground_share": (mask > 0.5).float().mean(),
            "mask_movement": (mask - output.source_mask).abs().mean(),
        }

    def pictures(self, inputs: StepInputs, output: MaskOutput, num_rows: int) -> dict[str, Tensor]:
        size = (inputs.source.shape[-2], inputs.source.shape[-1])
        masks = {
            "source mask": output.source_mask,
            "driving mask": output.driving_mask,
            "perturbed": output.perturbed_mask,
            "refined": output.refined_mask,
        }
        pictures = {"source": inputs.source, "driving": inputs.driving}
        pictures |= {
            title: grey_to_rgb(mask, size) for title, mask in masks.items() if mask is not None
        }
        return pictures | {"L": output.low_resolution, "H": output.high_resolution}


def num_halvings(scale: float) -> int:
    """The n of a `scale` of 1 / 2^n: how many times the sides are halved."""
    return round(-math.log2(scale))
