"""Fixtures that several test files share."""

import importlib.util
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from common import speed_trial
from modules import blocks

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    """Tiny networks run faster without a thread pool, and the numbers repeat exactly."""
    os.environ["OMP_NUM_THREADS"] = "1"  # which entry points keep to
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def slow_half_precision():
    """`auto` means float32 on whatever machine the tests run, for fixtures of modules too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed_trial, "half_precision_ratio", lambda *_: 20.0)
        yield


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Shells start what runs in the background with SIGINT ignored, and its children inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def large_maps():
    """Tiny networks upsample as those of full size do; both ways are compared in test_blocks.py."""
    blocks.MIN_FUSED_AREA = 0


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real clips, where it is at hand."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no shared data here")
    return SHARED / "data"


@pytest.fixture(autouse=True)
def fixed_seed():
    """Random test inputs are the same in every run."""
    torch.manual_seed(0)


class Golden:
    """Arrays stored from the published FOMM at 64 x 64, as tensors."""

    def __init__(self, path: Path) -> None:
        self.arrays = np.load(path)
        self.params = json.loads(bytes(self.arrays["meta"]))["model_params"]

    def __getitem__(self, name: str) -> torch.Tensor:
        array = self.arrays[name]
        if array.dtype == np.uint8:
            array = array.astype(np.float32) / 255
        return torch.from_numpy(array)

    def weights(self, part: str, prefix: str = "") -> dict[str, torch.Tensor]:
        """Tensors of one published part whose names start with `prefix`, which is removed."""
        head = f"weights/{part}/{prefix}"
        return {
            name[len(head) :]: torch.from_numpy(np.asarray(self.arrays[name]))
            for name in self.arrays.files
            if name.startswith(head)
        }


@pytest.fixture(scope="session")
def golden() -> Golden:
    path = SHARED / "golden" / "fomm_tiny.npz"
    if not path.is_file():
        pytest.skip("no golden numbers here")
    return Golden(path)


class GoldenMasks(Golden):
    """Arrays stored from the published Perturbed Masks at 256 x 256, as tensors.

    Its weights are not stored: each follows from its name and shape by the rule beside the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.shapes = json.loads(bytes(self.arrays["meta"]))["shapes"]  # by part, by tensor
        spec = importlib.util.spec_from_file_location("golden_weights", path.parent / "weights.py")
        assert spec is not None
        assert spec.loader is not None
        self.rule = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.rule)

    def weights(self, part: str, prefix: str = "") -> dict[str, torch.Tensor]:
        """Tensors of one published part whose names start with `prefix`, which they keep."""
        shapes = {n: s for n, s in self.shapes[part].items() if n.startswith(prefix)}
        return self.rule.state_dict(shapes)


@pytest.fixture(scope="session")
def golden_masks() -> GoldenMasks:
    path = SHARED / "golden" / "perturbed_masks_256.npz"
    if not path.is_file():
        pytest.skip("no golden numbers here")
    return GoldenMasks(path)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The folder of a finished run of 8 steps on puppets, to read from only."""
    import train
    from tests.helpers.runs import call, tiny

    folder = tmp_path_factory.mktemp("tiny") / "run"
    assert call(train, *tiny(folder, "train.ema_decay=0.5")) == 0
    return folder
