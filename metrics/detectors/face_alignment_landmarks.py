"""Face landmarks by face-alignment, the package that published AKD is measured with."""

import warnings
from pickle import UnpicklingError
from typing import Final

import numpy as np
import torch

from common.errors import UserError
from common.weight_files import downloaded
from media.frames import Frame
from metrics.detectors.detector import Description, Points
from metrics.detectors.packages import import_package

_FOLDER: Final = "https://www.adrianbulat.com/downloads/python-fan"
_FACES, _LANDMARKS = f"{_FOLDER}/s3fd-619a316812.pth", f"{_FOLDER}/2DFAN4-11f355bf06.pth.tar"


class FaceAlignmentLandmarks:
    """68 landmarks of the largest face in a frame, by FAN (Bulat and Tzimiropoulos 2017).

    The weights are downloaded once into torch's cache and checked before the package reads them:
    the package itself would unpickle any file of that name.

    Raises:
        UserError: the package is missing, the download failed, or a file is not the published one.
    """

    def __init__(self, device: torch.device) -> None:
        package = import_package("face_alignment", 'pip install "face-alignment>=1.5"')
        faces, landmarks = downloaded(_FACES), downloaded(_LANDMARKS)
        try:
            self._network = package.FaceAlignment(
                package.LandmarksType.TWO_D,
                device=str(device),
                flip_input=False,
                compile=False,
                face_detector_kwargs={"path_to_detector": str(faces)},  # so it reads only tensors
            )
        except (OSError, RuntimeError, UnpicklingError) as error:  # other files, other tensors
            raise UserError(
                f"face-alignment {package.__version__} cannot use its weights, {faces} and "
                f"{landmarks} ({error}); install another version"
            ) from error
        self.description = Description(
            name="face-alignment",
            weights=f"face-alignment {package.__version__}, 2DFAN4",
            convention="68 landmarks (iBUG 300-W) of the largest face, as in published AKD",
            licence="BSD-3-Clause; trained on data sets for research",
        )

    def landmarks(self, frame: Frame) -> Points:
        """68 landmarks, 68 x 2; all NaN if no face was found."""
        with warnings.catch_warnings(action="ignore"):  # it warns of frames without a face
            faces = self._network.get_landmarks_from_image(frame)
        return largest_face(faces)


def largest_face(faces: list[Points] | None) -> Points:
    """Choose the face whose landmarks span the largest area, 68 x 2; all NaN if there is none."""
    if not faces:
        return np.full((68, 2), np.nan)
    return max(faces, key=lambda points: np.ptp(points, axis=0).prod()).astype(np.float64)
