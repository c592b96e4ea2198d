"""Salient regions of real frames: found by a network, or given as masks."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from branches.masks import MaskBranch
from branches.motion.branch import MotionBranch
from common.errors import UserError
from common.limits import LIMITS, Limits
from common.safe_paths import exists, is_folder
from datasets.source import ClipSource
from media.frames import Frame
from media.images import Fit, fit_frames
from media.video import CONTAINER_SUFFIXES, VideoReader, open_clip
from media.visualization import to_uint8
from metrics.detectors.detector import Description, RegionFinder
from modules.geometry import resize

BACKGROUND_WEIGHT = 0.5  # a pixel with a smaller background weight in dense motion is figure
WHITE = 127  # pixels of a given mask that are brighter (of 255) are salient

logger = logging.getLogger(__name__)


class Regions(Protocol):
    """Finds the salient regions of a clip's frames."""

    description: Description

    def start(self, name: str, source: Tensor) -> Callable[[Tensor], Tensor]:
        """Start the clip `name` with the source `source`, 1 x 3 x H x W in [0, 1].

        Returns:
            A function from driving frames, B x 3 x H x W in order, to their salient regions,
            B x 1 x H x W bool.
        """
        ...


class DetectedRegions:
    """Regions that a detector finds in each frame."""

    def __init__(self, finder: RegionFinder) -> None:
        self.description = finder.description
        self._finder = finder

    def start(self, name: str, source: Tensor) -> Callable[[Tensor], Tensor]:
        """See `Regions.start`."""

        def find(driving: Tensor) -> Tensor:
            regions = np.stack([self._finder.region(frame) for frame in to_uint8(driving)])
            return torch.from_numpy(regions).unsqueeze(1).to(driving.device)

        return find


class MotionRegions:
    """Regions that the motion branch moves by keypoints, not as background.

    Args:
        origin: description of the branch's weights, for results.
    """

    def __init__(self, branch: MotionBranch, origin: str) -> None:
        self.description = Description(
            name="the model's own background weight",
            weights=origin,
            convention=f"motion_weights[:, 0] < {BACKGROUND_WEIGHT}, resized to the frame",
            licence="the checkpoint's",
        )
        self._branch = branch

    def start(self, name: str, source: Tensor) -> Callable[[Tensor], Tensor]:
        """See `Regions.start`."""
        encoded = self._branch.encode(source)

        def find(driving: Tensor) -> Tensor:
            motion = self._branch.estimate_motion(encoded, self._branch.detect(driving), driving)
            assert motion.background_weight is not None, "build_plan leaves such a model out"
            weight = resize(motion.background_weight, (driving.shape[-2], driving.shape[-1]))
            return weight < BACKGROUND_WEIGHT

        return find


class MaskRegions:
    """Foreground masks of the mask branch.

    Args:
        origin: description of the branch's weights, for results.
    """

    def __init__(self, branch: MaskBranch, threshold: float, origin: str) -> None:
        self.description = Description(
            name="the model's own foreground mask",
            weights=origin,
            convention=f"foreground mask > {threshold:g}, resized to the frame",
            licence="the checkpoint's",
        )
        self._branch = branch
        self._threshold = threshold

    def start(self, name: str, source: Tensor) -> Callable[[Tensor], Tensor]:
        """See `Regions.start`."""

        def find(driving: Tensor) -> Tensor:
            masks = self._branch.mask_generator(driving)
            return resize(masks, (driving.shape[-2], driving.shape[-1])) > self._threshold

        return find


class GivenRegions:
    """Regions from mask files: `folder/<clip>/00000.png` or `folder/<clip>.mp4`.

    There is one mask for each frame of the clip, bright where it is salient. Masks are fitted to
    the image size in the same way as frames. A warning is logged if all masks of a clip are white
    everywhere or black everywhere.

    Raises:
        UserError: a clip has no masks, or fewer masks than frames.
    """

    def __init__(self, folder: Path, clips: ClipSource, fit: Fit, limits: Limits = LIMITS) -> None:
        if not is_folder(folder):
            raise UserError(
                f"--salient {folder}: no such folder; give person, saliency, model, or a folder "
                "with masks for each clip"
            )
        self.description = Description(
            name="given masks",
            weights=str(folder),
            convention=f"mask brighter than {WHITE} of 255",
            licence="of whoever made them",
        )
        self._size = clips.image_size
        self._fit: Fit = fit
        self._num_frames: dict[str, int] = {}
        self._masks = {clip.name: _open_masks(folder, clip.name, limits) for clip in clips.clips}
        for index, clip in enumerate(clips.clips):
            masks, num_frames = self._masks[clip.name], clips.num_frames(index)
            if masks.num_frames < num_frames:
                raise UserError(
                    f"--salient: {masks.path} has {masks.num_frames} masks, its clip {num_frames} "
                    "frames; give one for each"
                )
            self._num_frames[clip.name] = num_frames

    def start(self, name: str, source: Tensor) -> Callable[[Tensor], Tensor]:
        """See `Regions.start`."""
        masks: Iterator[Frame] = iter(self._masks[name])
        shares: list[float] = []  # the share of salient pixels in each frame

        def find(driving: Tensor) -> Tensor:
            frames = np.stack([next(masks) for _ in driving])
            grey = fit_frames(frames, self._size, self._fit).mean(axis=-1, keepdims=True)
            regions = grey > WHITE
            shares.extend(regions.mean(axis=(1, 2, 3)))
            if len(shares) == self._num_frames[name] and set(shares) in ({0.0}, {1.0}):
                logger.warning(
                    "--salient: the masks of %s are %s in every pixel; white is salient, black "
                    "the rest",
                    self._masks[name].path,
                    "salient" if shares[0] else "not salient",
                )
            return torch.from_numpy(regions).movedim(-1, 1).to(driving.device)

        return find


def _open_masks(folder: Path, name: str, limits: Limits) -> VideoReader:
    candidates: Sequence[Path] = [
        folder / f"{name}{suffix}" for suffix in ("", *CONTAINER_SUFFIXES)
    ]
    for path in candidates:
        if exists(path):
            return open_clip(path, limits=limits)
    raise UserError(f"--salient {folder}: no masks for the clip {name}; add {name}/ or {name}.mp4")
