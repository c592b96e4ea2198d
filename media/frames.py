"""Frames as arrays, and what a reader of them may tell."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # H x W x 3, RGB
Frames = NDArray[np.uint8]  # N x H x W x 3, RGB


@runtime_checkable
class HasRemarks(Protocol):
    """Frames that may be odd."""

    @property
    def remarks(self) -> Sequence[str]:
        """What was done to the frames so far that a user should know, such as `interlaced; made
        whole (bwdif)`, and what was left out. At least what the first frame tells.
        """
        ...
