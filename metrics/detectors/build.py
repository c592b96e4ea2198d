"""Builds detectors by the names that the options --detector and --salient take."""

from collections.abc import Callable
from typing import Final

import torch

from common.errors import UserError
from metrics.detectors.detector import Detector, MatteFinder
from metrics.detectors.dlib_face import DlibFace
from metrics.detectors.face_alignment_landmarks import FaceAlignmentLandmarks
from metrics.detectors.keypoint_rcnn import KeypointRCNN
from metrics.detectors.mediapipe_models import BodyPose, FaceMesh, PersonMask
from metrics.detectors.saliency import Saliency

DETECTORS: Final[dict[str, Callable[[torch.device], Detector]]] = {
    "dlib": lambda _device: DlibFace(),
    "mediapipe": lambda _device: FaceMesh(),
    "mediapipe-body": lambda _device: BodyPose(),
    "face-alignment": FaceAlignmentLandmarks,
    "keypoint-rcnn": KeypointRCNN.trained,
}
REGION_FINDERS: Final[dict[str, Callable[[], MatteFinder]]] = {
    "person": PersonMask,
    "saliency": Saliency,
}


def build_detector(name: str, device: torch.device) -> Detector:
    """Build the detector `name`, one of DETECTORS.

    Which protocols of `metrics.detectors.detector` it has (isinstance) tells what it finds.

    Args:
        device: device to run on; detectors that need the CPU ignore it.

    Raises:
        UserError: a package is missing, or a download failed.
    """
    try:
        return DETECTORS[name](device)
    except UserError as error:
        raise UserError(f"--detector {name}: {error}") from error


def build_region_finder(name: str) -> MatteFinder:
    """Build the finder of salient regions `name`, one of REGION_FINDERS; it runs on the CPU.

    Raises:
        UserError: a package is missing.
    """
    try:
        return REGION_FINDERS[name]()
    except UserError as error:
        raise UserError(f"--salient {name}: {error}") from error
