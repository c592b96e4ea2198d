"""Scores of predicted pictures against rendered ones; benchmarks/puppets.py explains the names."""

from typing import NamedTuple

from torch import Tensor

from evaluation.measures import FrameMetrics, figure_metrics, pixel_metrics
from metrics.image import psnr, region_psnr


class Cutout(NamedTuple):
    """A figure without a background, in B poses.

    color: B x 3 x H x W in [0, 1], premultiplied by the mask.
    foreground_mask: B x 1 x H x W in [0, 1], the share of the pixel that the figure covers.
    """

    color: Tensor
    foreground_mask: Tensor

    @property
    def inside(self) -> Tensor:
        """B x 1 x H x W bool: pixels of which the figure covers more than half."""
        return self.foreground_mask > 0.5

    @property
    def outside(self) -> Tensor:
        """B x 1 x H x W bool: pixels that the figure does not touch. Pixels of its soft edge that
        it covers by half or less are neither inside nor outside.
        """
        return self.foreground_mask == 0

    def on(self, background: Tensor) -> Tensor:
        """Put the figure on `background`, B or 1 x 3 x H x W: the rendered truth, B x 3 x H x W."""
        return self.color + (1 - self.foreground_mask) * background


def animation_scores(
    result: Tensor, figure: Cutout, background: Tensor, source_inside: Tensor
) -> FrameMetrics:
    """Scores of an animated source, B numbers each.

    Args:
        result: the animated frames, B x 3 x H x W in [0, 1].
        figure: the source's figure in the driving poses.
        background: the source's background without a figure, 1 x 3 x H x W.
        source_inside: where the figure is in the source, 1 x 1 x H x W bool.
    """
    truth = figure.on(background)
    return {
        **pixel_metrics(result, truth),
        **figure_metrics(result, truth, source_inside | figure.inside),
        "figure_psnr": region_psnr(result, truth, figure.inside),
    }


def swap_scores(
    result: Tensor, figure: Cutout, new_background: Tensor, old_background: Tensor
) -> FrameMetrics:
    """Scores of a figure on a new background, B numbers each.

    Args:
        result: the swapped frames, B x 3 x H x W in [0, 1].
        figure: the source's figure in the driving poses.
        new_background, old_background: backgrounds of the truth and of the source, 1 x 3 x H x W,
            both without a figure.
    """
    truth = figure.on(new_background)
    background_psnr = region_psnr(result, new_background, figure.outside)
    figure_psnr = region_psnr(result, truth, figure.inside)
    return {
        "psnr": psnr(result, truth),
        "background_psnr": background_psnr,
        "figure_psnr": figure_psnr,
        "swap_gain_db": background_psnr - region_psnr(result, old_background, figure.outside),
        "figure_gain_db": figure_psnr - region_psnr(new_background, truth, figure.inside),
    }
