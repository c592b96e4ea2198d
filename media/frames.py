"""Types of frames as arrays, and the protocol of readers that have remarks for the user."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # H x W x 3, RGB
Frames = NDArray[np.uint8]  # N x H x W x 3, RGB


@runtime_checkable
class HasRemarks(Protocol):
    """A reader of frames that tells what it had to change or leave out."""

    @property
    def remarks(self) -> Sequence[str]:
        """Lines for the user on the frames read so far, at least on the first.

        They say what was changed, such as `interlaced; made whole (bwdif)`, or left out.
        """
        ...
