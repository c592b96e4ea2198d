"""Numbers of the published networks, from tests/golden (its README says what they are)."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.golden import weights

FOLDER = Path(weights.__file__).parent
STEP = 3  # of the rows and columns that are stored of a picture of 256 x 256


class Golden:
    """The arrays of one file of tests/golden as tensors; pictures in [0, 1]."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(FOLDER / name)
        meta = json.loads(bytes(self.arrays["meta"]))
        self.params = meta["model_params"]
        self.shapes: dict[str, dict[str, list[int]]] = meta["shapes"]  # by part, by tensor

    def __getitem__(self, name: str) -> Tensor:
        array = self.arrays[name]
        if array.dtype == np.uint8:
            array = array.astype(np.float32) / 255
        return torch.from_numpy(array)

    def weights(self, part: str, prefix: str = "") -> dict[str, Tensor]:
        """Tensors of one published part whose names start with `prefix`, which is removed."""
        head = f"weights/{part}/{prefix}"
        return {
            name[len(head) :]: torch.from_numpy(np.asarray(self.arrays[name]))
            for name in self.arrays.files
            if name.startswith(head)
        }


class GoldenMasks(Golden):
    """Those of Perturbed Masks, whose weights follow from their names and shapes."""

    def weights(self, part: str, prefix: str = "") -> dict[str, Tensor]:
        """Tensors of one published part whose names start with `prefix`, which they keep."""
        shapes = {n: s for n, s in self.shapes[part].items() if n.startswith(prefix)}
        return weights.state_dict(shapes)


def stored_pixels(images: Tensor) -> Tensor:
    """Those pixels of ... x 256 x 256 of which golden pictures are stored, ... x 86 x 86."""
    return images[..., ::STEP, ::STEP]
