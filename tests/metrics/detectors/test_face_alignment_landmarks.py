"""face-alignment, with a stand-in for the package: it cannot run without its download."""

import sys
import warnings
from types import ModuleType, SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from errors import UserError
from metrics.detectors.face_alignment_landmarks import FaceAlignmentLandmarks


def face(left, width):
    """68 points on the diagonal of a square."""
    line = np.linspace(left, left + width, 68, dtype=np.float32)
    return np.stack((line, line), axis=1)


@pytest.fixture
def package(monkeypatch):
    """What face-alignment 1.5 offers; `found` is what it sees in every frame."""
    module = ModuleType("face_alignment")
    module.__version__ = "1.5.0"
    module.LandmarksType = SimpleNamespace(TWO_D=1)
    module.found = []

    class FaceAlignment:
        def __init__(self, landmarks_type, device="cuda", flip_input=True, compile=True):
            assert (landmarks_type, device, flip_input, compile) == (1, "cpu", False, False)

        def get_landmarks_from_image(self, _frame):
            if not module.found:
                warnings.warn("No faces were detected.", stacklevel=2)
                return None
            return module.found

    module.FaceAlignment = FaceAlignment
    monkeypatch.setitem(sys.modules, "face_alignment", module)
    return module


def test_the_largest_face_counts(package, blank):
    package.found = [face(3, 20), face(40, 90), face(0, 60)]
    points = FaceAlignmentLandmarks(torch.device("cpu")).landmarks(blank)
    assert_array_equal(points, face(40, 90))
    assert points.dtype == np.float64


@pytest.mark.filterwarnings("error")
def test_no_face_is_no_warning(package, blank):
    points = FaceAlignmentLandmarks(torch.device("cpu")).landmarks(blank)
    assert points.shape == (68, 2)
    assert np.isnan(points).all()


def test_failed_download(package, monkeypatch, tmp_path):
    def offline(*_arguments, **_options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(package, "FaceAlignment", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="Name or service not known") as raised:
        FaceAlignmentLandmarks(torch.device("cpu"))
    assert str(tmp_path / "hub" / "checkpoints") in str(raised.value)
    assert "\n" not in str(raised.value)
