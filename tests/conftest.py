"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import pytest
import torch

from common import speed_trial
from modules import blocks
from tests.helpers.golden import Golden, GoldenMasks, GoldenMonkeyNet, GoldenTpsmm, GoldenX2Face
from tests.helpers.shared import SHARED


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


@pytest.fixture(scope="session")
def golden() -> Golden:
    """FOMM with its discriminator, small, at 64 x 64."""
    return Golden("fomm_tiny.npz")


@pytest.fixture(scope="session")
def golden_masks() -> GoldenMasks:
    """Perturbed Masks at 256 x 256; see `stored_pixels` for its pictures."""
    return GoldenMasks("perturbed_masks_256.npz")


@pytest.fixture(scope="session", params=["vox", "bair"])
def golden_monkey_net(request) -> GoldenMonkeyNet:
    """Monkey-Net with its discriminator, small, at 64 x 64, by the settings of two data sets."""
    return GoldenMonkeyNet(f"monkey_{request.param}_tiny.npz")


@pytest.fixture(scope="session")
def golden_x2face() -> GoldenX2Face:
    """X2Face, small, at 64 x 64."""
    return GoldenX2Face("x2face_tiny.npz")


@pytest.fixture(scope="session")
def golden_tpsmm() -> GoldenTpsmm:
    """TPSMM with its second stage, small, at 64 x 64."""
    return GoldenTpsmm("tpsmm_tiny.npz")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The folder of a finished run of 8 steps on puppets, to read from only."""
    import train
    from tests.helpers.runs import call, tiny

    folder = tmp_path_factory.mktemp("tiny") / "run"
    assert call(train, *tiny(folder, "train.ema_decay=0.5")) == 0
    return folder
