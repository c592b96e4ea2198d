"""Reads golden files, which hold numbers that the published networks computed.

Those of FOMM and Perturbed Masks are part of the project, in tests/golden. Those of Monkey-Net,
X2Face and TPSMM are not: they are read from a folder outside the project, if it is there, and tests
that need them are skipped otherwise. tests/golden/README.md describes the files.
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

Shapes = dict[str, dict[str, list[int]]]  # by part of a published file, by name of the tensor

FOLDERS = (Path(weights.__file__).parent, SHARED / "golden")  # the first that has a file counts
STEP = 3  # of a picture of 256 x 256, every third row and column is stored


class Golden:
    """The arrays of one golden file, as tensors.

    Pictures are in [0, 1]. Arrays in half precision become float32. A test that asks for a file
    which is in none of the folders is skipped.
    """

    def __init__(self, name: str) -> None:
        paths = [folder / name for folder in FOLDERS if (folder / name).is_file()]
        if not paths:
            pytest.skip(f"no golden file {name}: see tests/golden/README.md")
        self.arrays = np.load(paths[0])
        self.meta: dict[str, Any] = json.loads(bytes(self.arrays["meta"]))

    @property
    def params(self) -> dict[str, Any]:
        """Settings of the networks, under the keys of the published config."""
        return self.meta["model_params"]

    @property
    def shapes(self) -> Shapes:
        """Shapes of all tensors of the published networks, by part and name."""
        return self.meta["shapes"]

    def __getitem__(self, name: str) -> Tensor:
        array = self.arrays[name]
        if array.dtype == np.uint8:
            array = array.astype(np.float32) / 255
        elif array.dtype == np.float16:
            array = array.astype(np.float32)
        return torch.from_numpy(array)

    def weights(self, part: str, prefix: str = "") -> dict[str, Tensor]:
        """Return the tensors of one published part whose names start with `prefix`.

        The prefix is removed from the names.
        """
        head = f"weights/{part}/{prefix}"
        return {
            name[len(head) :]: torch.from_numpy(np.asarray(self.arrays[name]))
            for name in self.arrays.files
            if name.startswith(head)
        }


class GoldenMasks(Golden):
    """Numbers of Perturbed Masks. No weights are stored: they follow from names and shapes."""

    def weights(self, part: str, prefix: str = "") -> dict[str, Tensor]:
        """Return the tensors of one published part whose names start with `prefix`.

        The prefix stays in the names.
        """
        shapes = {n: s for n, s in self.shapes[part].items() if n.startswith(prefix)}
        return weights.state_dict(shapes)


class GoldenMonkeyNet(Golden):
    """Numbers of Monkey-Net, from a published config with fewer channels."""

    def published_shapes(self, data_set: str) -> Shapes:
        """Shapes of the networks in full size, published for `data_set`: vox, taichi, bair or
        moving-gif. Only `monkey_vox_tiny.npz` holds them: vox in full, of the others what differs.
        """
        stored = self.meta["published_shapes"]
        found = {}
        for part, shapes in stored["vox"].items():
            differing = stored[data_set][part]
            absent = differing.get("_absent", [])
            merged = shapes | differing
            found[part] = {
                name: merged[name] for name in merged if name not in [*absent, "_absent"]
            }
        return found

    def close(self, found: Tensor, name: str) -> None:
        """Compare `found` to a stored output.

        The tolerance is 6 times the stored difference between float32 and float64, and a few of the
        last digits.
        """
        assert_close(
            found.detach(),
            self[name],
            atol=6 * self.meta["float64_deviation"][name],
            rtol=1e-6,
            msg=lambda text: f"{name}: {text}",
        )


class GoldenX2Face(Golden):
    """Numbers of X2Face, whose weights are stored as one part, `model`."""

    @property
    def params(self) -> dict[str, Any]:
        return self.meta["config"]

    def close(self, found: Tensor, name: str) -> None:
        """Compare `found` to a stored output.

        The tolerance is 4 times the stored difference between float32 and float64.
        """
        atol = 4 * self.meta["float64_deviation"][name]
        assert_close(found, self[name], atol=atol, rtol=0)


class GoldenTpsmm(Golden):
    """Numbers of TPSMM.

    The weights of two parts are stored. Those of the others follow from names and shapes, except
    for the few that are stored as `kept/<part>/<name>`.
    """

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
        """Compare `found` to a stored output.

        The tolerance is 4 times the stored difference between float32 and float64, and 1e-7.
        """
        atol = 4 * self.meta["float64_deviation"][name] + 1e-7
        assert_close(found, self[name], atol=atol, rtol=0, msg=lambda m: f"{name}: {m}")


def stored_pixels(images: Tensor) -> Tensor:
    """Return the pixels that golden pictures keep: ... x 86 x 86 of ... x 256 x 256."""
    return images[..., ::STEP, ::STEP]


def assert_within_one_grey_level(found: np.ndarray, expected: Tensor) -> None:
    """Compare a picture to that of a published network, which was not rounded to grey levels.

    Args:
        found: uint8, ... x H x W x 3.
        expected: ... x 3 x H x W, in [0, 1].
    """
    grey = 255 * expected.movedim(-3, -1).numpy()
    assert found.shape == grey.shape
    assert np.abs(found.astype(np.float32) - grey).max() <= 1
