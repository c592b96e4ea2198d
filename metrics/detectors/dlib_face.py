"""Face landmarks and identity embeddings by dlib."""

import math
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from media.crops import Box
from media.frames import Frame
from metrics.detectors.detector import Description, Embedding, Points
from metrics.detectors.packages import import_package, weight_file
from metrics.detectors.resizing import resize_frame

_NUM_LANDMARKS = 68
_EMBEDDING_SIZE = 128
# dlib finds no faces below 80 pixels, so small frames are enlarged. The size alone decides this, so
# that true and predicted frames are measured alike.
_SMALLEST_SIDE = 256


class _Face(NamedTuple):
    """A face that dlib found.

    image: the frame, enlarged `factor` times.
    box, landmarks: objects of dlib, in pixels of `image`.
    """

    image: Frame
    factor: int
    box: Any
    landmarks: Any


class DlibFace:
    """Landmarks and identity of the largest face in a frame, by dlib's face detector, 68 landmarks
    and identity network (King 2009; Kazemi and Sullivan 2014); on the CPU.

    Raises:
        UserError: a package is missing.
    """

    def __init__(self) -> None:
        dlib = import_package("dlib")
        landmarks, identity = (
            str(weight_file("face_recognition_models", f"models/{name}.dat"))
            for name in (
                "shape_predictor_68_face_landmarks",
                "dlib_face_recognition_resnet_model_v1",
            )
        )
        self._detect = dlib.get_frontal_face_detector()
        self._align = dlib.shape_predictor(landmarks)
        self._encode = dlib.face_recognition_model_v1(identity)
        self._last: tuple[Frame, _Face | None] | None = None
        self.description = Description(
            name="dlib",
            weights=(
                f"dlib {dlib.__version__}, face_recognition_models "
                f"{version('face_recognition_models')}"
            ),
            convention=(
                "68 landmarks (iBUG 300-W) in whole pixels and 128-D identity of the largest "
                f"face; frames below {_SMALLEST_SIDE} pixels enlarged. Published AKD and AED come "
                "from other networks and do not compare"
            ),
            licence="landmarks trained on iBUG 300-W: non-commercial use only; the others CC0",
        )

    def landmarks(self, frame: Frame) -> Points:
        """68 landmarks, 68 x 2; all NaN if no face was found."""
        face = self._find(frame)
        if face is None:
            return np.full((_NUM_LANDMARKS, 2), np.nan)
        points = np.array([(point.x, point.y) for point in face.landmarks.parts()], np.float64)
        return (points + 0.5) / face.factor - 0.5

    def embedding(self, frame: Frame) -> Embedding:
        """128 numbers; two people are more than about 0.6 apart (Euclidean). NaN without a face."""
        face = self._find(frame)
        if face is None:
            return np.full(_EMBEDDING_SIZE, np.nan)
        return np.array(self._encode.compute_face_descriptor(face.image, face.landmarks))

    def face_box(self, frame: Frame) -> Box | None:
        """Box of the largest face, from the brows to the chin; None if there is no face."""
        face = self._find(frame)
        if face is None:
            return None
        box = face.box
        edges = (box.left(), box.top(), box.width(), box.height())
        return Box(*(edge / face.factor for edge in edges))

    def _find(self, frame: Frame) -> _Face | None:
        """The largest face of `frame`; the result for the last frame is remembered."""
        if self._last is None or not np.array_equal(self._last[0], frame):
            self._last = frame.copy(), self._search(frame)
        return self._last[1]

    def _search(self, frame: Frame) -> _Face | None:
        height, width, _ = frame.shape
        factor = math.ceil(_SMALLEST_SIDE / min(height, width))
        image = resize_frame(frame, (height * factor, width * factor))
        boxes = self._detect(image, 0)
        if not boxes:
            return None
        box = max(boxes, key=lambda box: box.area())
        return _Face(image, factor, box, self._align(image, box))
