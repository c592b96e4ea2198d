"""Frames at the size that a network wants, and its maps at the size of the frame."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from media.frames import Frame


def resize_frame(frame: Frame, size: tuple[int, int]) -> Frame:
    """Stretched to `size`, (height, width), whatever its shape: bilinear, averaged to shrink."""
    height, width = size
    if frame.shape[:2] == size:
        return np.ascontiguousarray(frame)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def threshold_at_size(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the h x w map `values`, stretched to `size`, (height, width), is above one half."""
    height, width = size
    stretched = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(stretched) > 0.5
