"""Resizes frames to the input size of a network, and its maps to the size of the frame."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from media.frames import Frame


def resize_frame(frame: Frame, size: tuple[int, int]) -> Frame:
    """Stretch `frame` to `size`, (height, width): bilinear, with antialiasing to shrink."""
    height, width = size
    if frame.shape[:2] == size:
        return np.ascontiguousarray(frame)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def stretch(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Stretch the h x w map `values` to `size`, (height, width): bilinear."""
    height, width = size
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))
