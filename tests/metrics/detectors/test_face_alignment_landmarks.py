"""face-alignment, with a stand-in for the package, which cannot run without a download."""

import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from common.errors import UserError
from metrics.detectors import face_alignment_landmarks
from metrics.detectors.face_alignment_landmarks import FaceAlignmentLandmarks


def face(left, width):
    """A face: 68 points on the diagonal of a square."""
    line = np.linspace(left, left + width, 68, dtype=np.float32)
    return np.stack((line, line), axis=1)


@pytest.fixture
def package(monkeypatch):
    """A stand-in for face-alignment 1.5 that finds the faces `found` in every frame."""
    module = ModuleType("face_alignment")
    module.__version__ = "1.5.0"
    module.LandmarksType = SimpleNamespace(TWO_D=1)
    module.found = []

    class FaceAlignment:
        def __init__(
            self,
            landmarks_type,
            device="cuda",
            flip_input=True,
            face_detector_kwargs=None,
            compile=True,
        ):
            assert (landmarks_type, device, flip_input, compile) == (1, "cpu", False, False)
            # Without this argument the package would unpickle the file in the cache.
            assert face_detector_kwargs == {"path_to_detector": "s3fd-619a316812.pth"}

        def get_landmarks_from_image(self, _frame):
            if not module.found:
                warnings.warn("No faces were detected.", stacklevel=2)
                return None
            return module.found

    module.FaceAlignment = FaceAlignment
    monkeypatch.setitem(sys.modules, "face_alignment", module)
    monkeypatch.setattr(
        face_alignment_landmarks, "downloaded", lambda url: Path(url.rsplit("/", 1)[-1])
    )
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


def test_weights_of_another_version(package, monkeypatch):
    def unfit(*_arguments, **_options):
        raise RuntimeError("size mismatch for conv1.weight")

    monkeypatch.setattr(package, "FaceAlignment", unfit)
    with pytest.raises(UserError, match=r"1\.5\.0 cannot use its weights.*size mismatch") as raised:
        FaceAlignmentLandmarks(torch.device("cpu"))
    assert "2DFAN4-11f355bf06.pth.tar" in str(raised.value)
    assert "\n" not in str(raised.value)
