"""Builds the swapper that puts an animation on its background: masks, ways to compose, lines for
the user on what was chosen.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from animation import inpainting
from animation.background_swap import BackgroundSwapper, BackgroundType, Compose, Edge
from animation.figure_masks import FigureMasks, SmoothedMasks
from animation.inputs import Driving, Picture, is_source, is_transparent
from animation.mask_sources import Masks, MaskSources, is_name
from animation.settings import Settings, as_typed, choose_swap
from animation.smoothing import Smoothing
from branches.model import Model
from common.errors import UserError
from media.frames import Frame


class SwapInputs(NamedTuple):
    """Inputs of an animation that its masks depend on.

    background: as the user gave it; None if only masks are asked for.
    driving: the driving frames.
    backgrounds: the background of each frame; None without one.
    fit_source: brings a mask of the source to the model's size, as the source was.
    """

    background: Picture | None
    driving: Driving
    backgrounds: Iterable[Frame] | None
    fit_source: Callable[[Frame], Frame]


class SwapChooser:
    """Builds swappers for a model.

    Args:
        untrained: why the background branch has not learned yet; None if it has.
    """

    def __init__(self, model: Model, sources: MaskSources, untrained: str | None) -> None:
        self._model = model
        self._sources = sources
        self._untrained = untrained

    def build(self, settings: Settings, inputs: SwapInputs, notes: list[str]) -> BackgroundSwapper:
        """Build the swapper for an animation. Adds lines to `notes`.

        Raises:
            UserError: masks or branches that are needed are missing, or do not fit the inputs.
        """
        option = "--masks" if inputs.background is None else "--background"
        masks = settings.masks or self._sources.default_name(option)
        figure = self._figure_masks(masks, settings, inputs)
        edge: Edge = settings.edge or ("plain" if masks == "model" else "clean")
        if masks != "model":
            notes.append(f"masks of the animated frames: {figure.name}")
        background = inputs.background
        if background is None or is_transparent(background):
            if background is not None:
                choose_swap(background, settings, "alpha", "other")
            return BackgroundSwapper(self._model, "other", "alpha", figure_masks=figure, edge=edge)
        has_networks = self._model.background is not None and self._untrained is None
        default_compose: Compose = "network" if has_networks and masks == "model" else "alpha"
        behind = self._behind(masks, settings)
        # Saliency marks something in every picture, also where there is no figure to remove.
        is_found = settings.background_masks is not None or behind not in (None, "saliency")
        default_type: BackgroundType = "same" if is_source(background) or is_found else "other"
        kind, compose = choose_swap(background, settings, default_compose, default_type)
        if compose == "network":
            self._require_networks(settings)
            edge = "plain"
        behind_masks = None
        if kind == "same":
            behind = behind or self._sources.default_name("--background-masks")
            behind_masks = self._background_masks(behind, inputs)
        swapper = BackgroundSwapper(
            self._model,
            kind,
            compose,
            figure_masks=figure,
            background_masks=behind_masks,
            edge=edge,
            use_networks=has_networks,
        )
        if swapper.inpaints and behind_masks is not None:
            notes.append(
                f"background: its own figure is removed ({behind_masks.name}), and the hole filled "
                f"by {inpainting.NAME}"
            )
        return swapper

    def _behind(self, masks: Masks, settings: Settings) -> Masks | None:
        """What finds the figure of the background: as asked for, or else what finds that of the
        animated frames, or the default; None if there is nothing.
        """
        if settings.background_masks is not None or is_name(masks):
            return settings.background_masks or masks
        try:
            return self._sources.default_name("--background-masks")
        except UserError:
            return None

    def _figure_masks(self, masks: Masks, settings: Settings, inputs: SwapInputs) -> FigureMasks:
        found: FigureMasks
        if is_name(masks):
            found = self._sources.named(masks, "--masks")
        else:
            found = self._sources.for_frames(masks, "--masks", inputs.driving)
        if settings.smooth:
            driving = inputs.driving
            found = SmoothedMasks(found, Smoothing(driving.frame_rate, driving.times))
        return found

    def _background_masks(self, masks: Masks, inputs: SwapInputs) -> FigureMasks:
        option = "--background-masks"
        if is_name(masks):
            return self._sources.named(masks, option)
        return self._sources.for_background(masks, option, inputs.backgrounds, inputs.fit_source)

    def _require_networks(self, settings: Settings) -> None:
        """Raise UserError if the networks that paint have not been trained, or cannot use a
        setting.
        """
        if self._untrained is not None and self._model.background is not None:
            raise UserError(
                f"--compose network: {self._untrained}; train on, or use --compose alpha"
            )
        if settings.edge is not None:
            raise UserError(
                f"{as_typed('edge')} {settings.edge}: BGRefine paints the picture, the figure's "
                "edge too; use --compose alpha, or leave it out"
            )
