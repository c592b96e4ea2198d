"""Masks that cut figures out of frames: the model's own, those of a detector, or given files."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import convolve
from torch import Tensor

from animation.smoothing import FilterState, Smoothing, one_euro
from branches.model import Model
from common.errors import UserError
from media.frames import Frame
from media.visualization import to_uint8
from metrics.detectors.detector import MatteFinder
from modules.geometry import resize
from modules.mask_generator import MaskGenerator

RAMP = 0.25  # opacity rises from 0 to 1 over mask values this far below to above the threshold
# Weights of a pixel and its neighbours, which give a mask of only black and white a soft edge.
FEATHER: Final = np.outer((1, 2, 1), (1, 2, 1)).astype(np.float32) / 16

FindMasks = Callable[[Tensor], Tensor]  # from B x 3 x H x W to B x 1 x h x w; see `FigureMasks`


class FigureMasks(Protocol):
    """Where the masks of figures come from.

    name: name for messages.
    are_given: whether they are read in order, and do not depend on the frames.
    """

    name: str
    are_given: bool

    def start(self) -> FindMasks:
        """Start a clip.

        Returns:
            A function from its frames, B x 3 x H x W in [0, 1] and in order, to their masks,
            B x 1 x h x w in [0, 1].
        """
        ...

    def opacity(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """The opacity of the figures, B x 1 x H x W in [0, 1] at `size`, for their masks."""
        ...


class ModelMasks:
    """Masks of the model's own mask generator, which must be in evaluation mode.

    Args:
        threshold: value of a mask at the edge of the figure.
    """

    are_given = False

    def __init__(self, mask_generator: MaskGenerator, threshold: float) -> None:
        self.name = "the model's own masks"
        self._threshold = threshold
        self._mask_generator = mask_generator

    @classmethod
    def of(cls, model: Model) -> "ModelMasks | None":
        """The masks of `model`; None without a mask branch."""
        if model.masks is None:
            return None
        return cls(model.masks.mask_generator, model.mask_threshold)

    def start(self) -> FindMasks:
        """See `FigureMasks.start`."""
        return self._mask_generator

    def opacity(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """See `FigureMasks.opacity`."""
        return feathered(masks, self._threshold, size)


class DetectedMasks:
    """Masks that a detector finds in each frame, on the CPU."""

    are_given = False

    def __init__(self, finder: MatteFinder) -> None:
        self.name = finder.description.name
        self._finder = finder

    def start(self) -> FindMasks:
        """See `FigureMasks.start`. A frame that comes again is not searched again."""
        last: tuple[Frame, NDArray[np.float32]] | None = None

        def probability(frame: Frame) -> NDArray[np.float32]:
            nonlocal last
            if last is None or not np.array_equal(last[0], frame):
                last = frame, self._finder.probability(frame)
            return last[1]

        def find(frames: Tensor) -> Tensor:
            found = np.stack([probability(frame) for frame in to_uint8(frames)])
            return torch.from_numpy(found).unsqueeze(1).to(frames.device)

        return find

    def opacity(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """See `FigureMasks.opacity`."""
        return feathered(masks, 0.5, size)


class GivenMasks:
    """Masks from the user: white is the figure, grey is partly see-through.

    A mask of only black and white gets a soft edge of a pixel to each side.

    Args:
        masks: uint8 H x W x 3 at the model's size, one for each frame. Every iteration starts anew.
        name: name for messages.
    """

    are_given = True

    def __init__(self, masks: Iterable[Frame], name: str) -> None:
        self.name = name
        self._masks = masks

    def start(self) -> FindMasks:
        """See `FigureMasks.start`. Only the number of the frames matters, not their content.

        The function raises UserError if there are fewer masks than frames.
        """
        masks: Iterator[Frame] = iter(self._masks)
        num_read = 0

        def following() -> NDArray[np.float32]:
            nonlocal num_read
            mask = next(masks, None)
            if mask is None:
                raise UserError(f"{self.name}: ends after {num_read} masks; give one a frame")
            num_read += 1
            return opacity_of_picture(mask)

        def find(frames: Tensor) -> Tensor:
            found = np.stack([following() for _ in range(len(frames))])
            return torch.from_numpy(found).unsqueeze(1).to(frames.device)

        return find

    def opacity(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """See `FigureMasks.opacity`: the masks themselves."""
        return resize(masks, size)


class SmoothedMasks:
    """The masks of `masks`, filtered over time by a one-euro filter."""

    def __init__(self, masks: FigureMasks, smoothing: Smoothing) -> None:
        self.name = masks.name
        self.are_given = masks.are_given
        self._masks = masks
        self._smoothing = smoothing

    def start(self) -> FindMasks:
        """See `FigureMasks.start`."""
        find_sharp = self._masks.start()
        state: FilterState | None = None

        def find(frames: Tensor) -> Tensor:
            nonlocal state
            smoothed, state = one_euro(find_sharp(frames), self._smoothing, state)
            return smoothed

        return find

    def opacity(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """See `FigureMasks.opacity`."""
        return self._masks.opacity(masks, size)


def feathered(masks: Tensor, threshold: float, size: tuple[int, int]) -> Tensor:
    """The opacity at `size` of figures with `masks`, B x 1 x h x w in [0, 1].

    It rises smoothly from 0 to 1 around the threshold. The mask itself would not do: where it is
    less than 1, the figure would be see-through.
    """
    masks = resize(masks, size)
    half = min(RAMP, threshold, 1 - threshold)  # so 0 and 1 keep their values
    ramp = ((masks - threshold) / (2 * half) + 0.5).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def opacity_of_picture(mask: Frame) -> NDArray[np.float32]:
    """The opacity that a mask given as a picture, uint8 H x W x 3, says: H x W in [0, 1]."""
    opacity = mask.mean(axis=2, dtype=np.float32) / 255
    if ((opacity > 0) & (opacity < 1)).any():
        return opacity
    feathered_edge: NDArray[np.float32] = convolve(opacity, FEATHER, mode="nearest")
    return feathered_edge
