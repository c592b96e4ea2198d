"""Landmarks of faces by face-alignment, the package that published AKD is measured with."""

import warnings
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch

from datasets.source import Frame
from errors import UserError
from metrics.detectors.detector import Description, Points
from metrics.detectors.packages import import_package


class FaceAlignmentLandmarks:
    """68 landmarks by FAN (Bulat and Tzimiropoulos 2017) of the largest face of a frame.

    The package downloads its weights once.

    Raises:
        UserError: the package is missing, or the download failed.
    """

    def __init__(self, device: torch.device) -> None:
        package = import_package("face_alignment", 'pip install "face-alignment>=1.5"')
        try:
            self._network = package.FaceAlignment(
                package.LandmarksType.TWO_D, device=str(device), flip_input=False, compile=False
            )
        except (OSError, RuntimeError, UnpicklingError) as error:  # no network; a damaged file
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise UserError(
                f"the weights of face-alignment could not be loaded ({error}); put "
                "s3fd-619a316812.pth and 2DFAN4-11f355bf06.pth.tar from "
                f"https://www.adrianbulat.com/downloads/python-fan into {folder}"
            ) from error
        self.description = Description(
            name="face-alignment",
            weights=f"face-alignment {package.__version__}, 2DFAN4",
            convention="68 landmarks (iBUG 300-W) of the largest face, as in published AKD",
            licence="BSD-3-Clause; trained on data sets for research",
        )

    def landmarks(self, frame: Frame) -> Points:
        """68 x 2; all NaN where no face was found."""
        with warnings.catch_warnings(action="ignore"):  # it warns of frames without a face
            faces = self._network.get_landmarks_from_image(frame)
        return largest_face(faces)


def largest_face(faces: list[Points] | None) -> Points:
    """The face that spans the largest area, 68 x 2; all NaN where there is none."""
    if not faces:
        return np.full((68, 2), np.nan)
    return max(faces, key=lambda points: np.ptp(points, axis=0).prod()).astype(np.float64)
