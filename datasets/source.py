"""What every kind of training data looks like to the rest of the program: a list of clips."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from media.frames import Frame, Frames


class Clip(NamedTuple):
    """One video: `name` is unique in its split, `identity` groups clips of one subject."""

    name: str
    identity: str


class ClipSource(Protocol):
    """The clips of one split. Reading is a pure function of (index, frames): workers share nothing.

    `image_size` is (height, width); every frame that `read` returns has it.
    """

    clips: Sequence[Clip]
    image_size: tuple[int, int]

    def num_frames(self, index: int) -> int:
        """Number of frames of clip `index`: the same in every process and all through a run."""
        ...

    def frame_rate(self, index: int) -> Fraction:
        """Frames per second of clip `index`, exact."""
        ...

    def stream(self, index: int) -> Iterator[Frame]:
        """The frames of clip `index` in order, without holding them all.

        Fewer than `num_frames` where the clip is damaged.
        """
        ...

    def read(self, index: int, frames: Sequence[int]) -> Frames:
        """Frames of clip `index` in the order asked for (repeats allowed): uint8, N x H x W x 3.

        Raises:
            media.video.VideoError: the clip cannot be read.
        """
        ...


@runtime_checkable
class HasForeground(Protocol):
    """A source that knows the truth: which pixels show the figure."""

    def foreground_masks(self, index: int, frames: Sequence[int]) -> NDArray[np.float32]:
        """Foreground of the frames of clip `index`: N x H x W in [0, 1], 1 = figure."""
        ...
