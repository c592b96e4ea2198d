"""ClipSource, the interface of all kinds of training and test data: a list of clips."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from media.frames import Frame, Frames


class Clip(NamedTuple):
    """One video: `name` is unique in its split, `identity` groups the clips of one subject."""

    name: str
    identity: str


class ClipSource(Protocol):
    """The clips of one split.

    What `read` returns depends on its arguments alone, so workers share no state. `image_size` is
    (height, width) of every frame.
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
        """Iterate over the frames of clip `index`, of which one at a time is in memory.

        They are fewer than `num_frames` if the clip is damaged.
        """
        ...

    def read(self, index: int, frames: Sequence[int]) -> Frames:
        """Read frames of clip `index` in the given order (repeats allowed): uint8, N x H x W x 3.

        Raises:
            media.video.VideoError: the clip cannot be read.
        """
        ...


@runtime_checkable
class HasChecksum(Protocol):
    """A source of files, of which machines may have different copies."""

    def content_checksum(self) -> int:
        """A number that tells copies apart, without reading all of them."""
        ...


@runtime_checkable
class HasForeground(Protocol):
    """A source that knows the true foreground: which pixels show the figure."""

    def foreground_masks(self, index: int, frames: Sequence[int]) -> NDArray[np.float32]:
        """Foreground masks of frames of clip `index`: N x H x W in [0, 1], 1 = figure."""
        ...


@runtime_checkable
class HasHiddenPixels(Protocol):
    """A source that knows which pixels of a frame another frame of the clip does not show."""

    def hidden_pixels(self, index: int, source: int, frames: Sequence[int]) -> NDArray[np.bool_]:
        """What frames of clip `index` show and frame `source` does not: N x H x W."""
        ...
