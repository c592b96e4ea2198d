"""Chooses where the masks of figures come from: the model, a detector, or files."""

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeGuard, get_args

from animation.figure_masks import DetectedMasks, FigureMasks, GivenMasks, ModelMasks
from animation.inputs import Driving, FittedFrames, fit_whole
from branches.model import Model
from common.errors import UserError
from common.limits import LIMITS, Limits
from common.safe_paths import exists
from configs.schema import DataConfig
from media.backgrounds import BackgroundFrames, shows_clip
from media.frames import Frame
from media.images import read_image
from media.video import open_clip
from metrics.detectors.build import REGION_FINDERS
from metrics.detectors.detector import MatteFinder
from metrics.detectors.packages import NotInstalled

MasksName = Literal["model", "person", "saliency"]
DETECTED: Final[tuple[MasksName, ...]] = ("person", "saliency")  # the better one for people first
MASKS: Final[tuple[MasksName, ...]] = get_args(MasksName)
Masks = str | Path  # a MasksName, or the masks in a file or a folder; a Path is never a name


class MaskFiles(NamedTuple):
    """Masks in a file or a folder, of any size.

    masks: uint8 H x W x 3 each. Every iteration starts anew.
    """

    masks: Iterable[Frame]
    num_masks: int
    path: str


class MaskSources:
    """The sources of masks for a model. Detectors are built when they are needed, and kept.

    Args:
        data: has the size that masks are brought to, and how.
    """

    def __init__(self, model: Model, data: DataConfig, limits: Limits = LIMITS) -> None:
        self._own = ModelMasks.of(model)
        self._data = data
        self._limits = limits
        self._finders: dict[str, MatteFinder] = {}

    def available(self) -> Iterator[MasksName]:
        """The masks that can be used here, the default first: the model's own if it has any, and
        the detectors that are installed. A detector is built when its turn comes.
        """
        if self._own is not None:
            yield "model"
        for name in DETECTED:
            try:
                self._finder(name)
            except NotInstalled:
                continue
            yield name

    def default_name(self, option: str) -> MasksName:
        """The first of `available`.

        Args:
            option: the option that needs masks, for the error message.

        Raises:
            UserError: there are none.
        """
        name = next(self.available(), None)
        if name is not None:
            return name
        try:
            self._finder("person")
        except NotInstalled as error:
            reason = str(error)
        raise UserError(
            f"{option}: the checkpoint was trained without the mask branch, and no detector that "
            f"could cut the figure out is installed ({reason}); or give masks with --masks"
        )

    def _finder(self, name: str) -> MatteFinder:
        if name not in self._finders:
            self._finders[name] = REGION_FINDERS[name]()
        return self._finders[name]

    def named(self, name: MasksName, option: str) -> FigureMasks:
        """The masks `name`.

        Raises:
            UserError: the model has none, or a package is missing; names `option`.
        """
        if name == "model":
            if self._own is None:
                raise UserError(
                    f"{option} model: the checkpoint was trained without the mask branch; use "
                    "person, saliency, or masks in a file"
                )
            return self._own
        try:
            return DetectedMasks(self._finder(name))
        except UserError as error:
            raise UserError(f"{option} {name}: {error}") from error

    def for_frames(self, path: Masks, option: str, driving: Driving) -> FigureMasks:
        """Masks in files for the animated frames.

        Raises:
            UserError: they cannot be read, or are not as many as the driving frames.
        """
        if driving.num_frames is None:
            raise UserError(
                f"{option} {path}: needs as many masks as driving frames, whose number an iterator "
                "does not tell; give a list, an array or a file"
            )
        files = self._open(path, option)
        if files.num_masks != driving.num_frames:
            raise UserError(
                f"{option} {path}: has {files.num_masks} masks, and {driving.num_frames} driving "
                "frames are animated; give a clip or a folder with a mask for each"
            )
        return self._given(files, option, lambda mask: fit_whole(mask, self._data))

    def for_background(
        self,
        path: Masks,
        option: str,
        backgrounds: Iterable[Frame] | None,
        fit_source: Callable[[Frame], Frame],
    ) -> FigureMasks:
        """Masks in files for the figures in a background.

        Args:
            backgrounds: the frames of the background, or the source again and again.
            fit_source: brings a mask of the source to the model's size, as the source was.

        Raises:
            UserError: they cannot be read, or are not as many as the background has frames.
        """
        files = self._open(path, option)
        opened = backgrounds if isinstance(backgrounds, BackgroundFrames) else None
        num_frames = 1 if opened is None else opened.num_frames
        if files.num_masks != num_frames:
            given = "1 picture" if num_frames == 1 else f"{num_frames} frames"
            raise UserError(
                f"{option} {path}: has {files.num_masks} masks, and the background {given}; give "
                "one mask for a picture, or a clip or a folder with a mask for each frame"
            )
        if opened is not None:
            return GivenMasks(opened.with_frames(files.masks, option), f"{option} {path}")
        (mask,) = files.masks
        return GivenMasks(repeat(fit_source(mask)), f"{option} {path}")

    def _given(self, files: MaskFiles, option: str, fit: Callable[[Frame], Frame]) -> GivenMasks:
        masks = FittedFrames(files.masks, lambda _, mask: fit(mask))
        return GivenMasks(masks, f"{option} {files.path}")

    def _open(self, path: Masks, option: str) -> MaskFiles:
        """Open a picture, which is one mask, or a clip."""
        try:
            if not exists(Path(path)):
                raise UserError(f"{path}: no such file or folder; use {', '.join(MASKS)}, or masks")
            if not shows_clip(Path(path), self._limits):
                return MaskFiles([read_image(path, self._limits)], 1, str(path))
            clip = open_clip(path, limits=self._limits)
            return MaskFiles(clip, clip.num_frames, str(path))
        except UserError as error:
            raise UserError(f"{option} {error}") from None


def is_name(masks: Masks | None) -> TypeGuard[MasksName]:
    """Whether a value of --masks is one of MASKS, not a file."""
    return isinstance(masks, str) and masks in MASKS
