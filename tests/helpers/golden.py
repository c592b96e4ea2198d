"""Numbers of the published networks (tests/golden/README.md says what they are).

The small files are in tests/golden, the others in the folder of shared data: a test whose file is
missing is skipped.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.golden import weights
from tests.helpers.shared import SHARED

FOLDERS = (Path(weights.__file__).parent, SHARED / "golden")
STEP = 3  # of the rows and columns that are stored of a picture of 256 x 256


class Golden:
    """The arrays of one file as tensors; pictures in [0, 1], no half precision."""

    def __init__(self, name: str) -> None:
        paths = [folder / name for folder in FOLDERS if (folder / name).is_file()]
        if not paths:
            pytest.skip(f"{name} is not here")
        self.arrays = np.load(paths[0])
        self.meta: dict[str, Any] = json.loads(bytes(self.arrays["meta"]))

    @property
    def params(self) -> dict[str, Any]:
        """Settings of the networks, as the published config has them."""
        return self.meta["model_params"]

    @property
    def shapes(self) -> dict[str, dict[str, list[int]]]:
        """Shapes of all tensors by part, by name."""
        return self.meta["shapes"]

    def __getitem__(self, name: str) -> Tensor:
        array = self.arrays[name]
        if array.dtype == np.uint8:
            array = array.astype(np.float32) / 255
        elif array.dtype == np.float16:
            array = array.astype(np.float32)
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


class GoldenMonkeyNet(Golden):
    """Those of Monkey-Net, by a published config with fewer channels."""

    def close(self, found: Tensor, name: str) -> None:
        """Within a few times what float32 was away from float64, and a few of its last digits."""
        assert_close(
            found.detach(),
            self[name],
            atol=6 * self.meta["float64_deviation"][name],
            rtol=1e-6,
            msg=lambda text: f"{name}: {text}",
        )


class GoldenX2Face(Golden):
    """Those of X2Face; its weights are those of one part, `model`."""

    @property
    def params(self) -> dict[str, Any]:
        return self.meta["config"]

    def close(self, found: Tensor, name: str) -> None:
        """As near to the stored output as two ways of computing it in float32 may be."""
        atol = 4 * self.meta["float64_deviation"][name]
        assert_close(found, self[name], atol=atol, rtol=0)


class GoldenTpsmm(Golden):
    """Those of TPSMM. Weights that are not stored follow from name and shape, but for a few."""

    def weights(self, part: str, prefix: str = "") -> dict[str, Tensor]:
        stored = super().weights(part, prefix)
        if stored:
            return stored
        head = f"kept/{part}/"
        kept = {
            name.removeprefix(head): self[name]
            for name in self.arrays.files
            if name.startswith(head)
        }
        return weights.state_dict(self.shapes[part]) | kept

    def close(self, found: Tensor, name: str) -> None:
        """What float32 costs, measured against float64, is the scale of the tolerance."""
        atol = 4 * self.meta["float64_deviation"][name] + 1e-7
        assert_close(found, self[name], atol=atol, rtol=0, msg=lambda m: f"{name}: {m}")


def stored_pixels(images: Tensor) -> Tensor:
    """Those pixels of ... x 256 x 256 of which golden pictures are stored, ... x 86 x 86."""
    return images[..., ::STEP, ::STEP]


def assert_within_one_grey_level(found: np.ndarray, expected: Tensor) -> None:
    """Compare uint8 ... x H x W x 3 to what a published network made, ... x 3 x H x W in [0, 1]."""
    grey = 255 * expected.movedim(-3, -1).numpy()
    assert found.shape == grey.shape
    assert np.abs(found.astype(np.float32) - grey).max() <= 1
