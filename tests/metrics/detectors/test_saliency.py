"""U2-Net on a portrait."""

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from metrics.detectors.resizing import resize_frame
from metrics.detectors.saliency import Saliency
from tests.helpers.runs import REPOSITORY

pytest.importorskip("onnxruntime")
if find_spec("rembg") is None:
    pytest.skip("no weights of U2-Net here", allow_module_level=True)


@pytest.fixture(scope="module")
def saliency():
    return Saliency()


def test_the_person_is_salient(saliency, portrait):
    region = saliency.region(portrait)
    assert region.shape == (512, 512)
    assert region.dtype == bool
    assert region[100, 225]  # her face
    assert region[350, 200]  # her suit
    assert not region[10, [10, 400]].any()  # the wall
    assert 0.4 < region.mean() < 0.7


def test_dark_frames_are_brightened(saliency, portrait):
    """As published, the input is divided by its brightest pixel."""
    wide = resize_frame(portrait, (128, 256))
    bright, dark = saliency.region(wide), saliency.region(wide // 4)
    assert bright.shape == (128, 256)
    assert (bright == dark).mean() > 0.97


@pytest.mark.filterwarnings("error")
def test_a_black_frame(saliency):
    assert saliency.region(np.zeros((64, 64, 3), np.uint8)).mean() < 0.1


def test_its_use_is_not_reported(tmp_path):
    """Where onnxruntime would report to its makers, it leaves a file of its session."""
    code = "from metrics.detectors.saliency import Saliency; Saliency()"
    variables = os.environ | {"TMPDIR": str(tmp_path)}
    variables.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=variables, check=True)
    assert not (tmp_path / ".ses").exists()
