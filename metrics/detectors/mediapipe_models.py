"""Face mesh, body pose and person mask by MediaPipe's .tflite files, without its own runtime.

The networks of face and body expect a crop around one face or body. Here the face or body should
fill most of the frame, and a network runs in three passes: on the whole frame, then on a square
around its result, as MediaPipe tracks a person from frame to frame. After the first pass alone the
points would follow small motions only roughly.
"""

import math
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from media.crops import Box, cut_out, with_aspect
from media.frames import Frame
from metrics.detectors.detector import Description, Points
from metrics.detectors.packages import import_package, weight_file
from metrics.detectors.resizing import resize_frame, stretch

_LICENCE = "Apache-2.0"
_NUM_FACE_POINTS = 468
_NUM_BODY_POINTS = 33
_NUM_PASSES = 3
_FACE_MARGIN = 1.5  # side of MediaPipe's crops, as a multiple of the extent of the points
_BODY_MARGIN = 1.25


class FaceMesh:
    """468 points of the only face in a frame (Kartynnik et al. 2019); on the CPU.

    Raises:
        UserError: a package is missing.
    """

    def __init__(self) -> None:
        self._network = _Network("face_landmark/face_landmark.tflite")
        self.description = Description(
            name="MediaPipe face mesh",
            weights=self._network.origin,
            convention=(
                "468 points of a face that fills most of the frame. Published AKD is of 68 others "
                "and does not compare"
            ),
            licence=_LICENCE,
        )

    def landmarks(self, frame: Frame) -> Points:
        """468 points, 468 x 2; all NaN if no face was found."""
        points = self._points(frame, _whole(frame))
        for _ in range(_NUM_PASSES - 1):
            if points is not None:
                corner = points.min(axis=0)
                span = points.max(axis=0) - corner
                box = _square(corner + span / 2, _FACE_MARGIN * span.max())
                points = self._points(frame, box)
        return np.full((_NUM_FACE_POINTS, 2), np.nan) if points is None else points

    def _points(self, frame: Frame, box: Box) -> Points | None:
        values, presence = self._network(cut_out(frame, box, self._network.size))
        if presence.flat[0] < 0:  # a logit
            return None
        return self._network.to_frame(values.reshape(_NUM_FACE_POINTS, 3)[:, :2], box)


class BodyPose:
    """33 points of the only person in a frame (BlazePose; Bazarevsky et al. 2020); on the CPU.

    Raises:
        UserError: a package is missing.
    """

    def __init__(self) -> None:
        self._network = _Network("pose_landmark/pose_landmark_full.tflite")
        self.description = Description(
            name="MediaPipe body pose",
            weights=self._network.origin,
            convention=(
                "33 points of a body that fills most of the frame, those seen with a probability "
                "above one half. Published AKD and MKR are of 18 others and do not compare"
            ),
            licence=_LICENCE,
        )

    def landmarks(self, frame: Frame) -> Points:
        """33 x 2; a row of NaN for each point that is likely hidden, only NaN without a person."""
        pose = self._pose(frame, _whole(frame))
        for _ in range(_NUM_PASSES - 1):
            if pose is not None:
                radius = math.dist(pose.reach, pose.hips)
                pose = self._pose(frame, _square(pose.hips, 2 * _BODY_MARGIN * radius))
        if pose is None:
            return np.full((_NUM_BODY_POINTS, 2), np.nan)
        return np.where(pose.seen[:, None], pose.points, np.nan)

    def _pose(self, frame: Frame, box: Box) -> "_Pose | None":
        values, presence, *_ = self._network(cut_out(frame, box, self._network.size))
        if presence.flat[0] < 0.5:
            return None
        rows = values.reshape(-1, 5)  # x, y, depth, logits of visibility and of presence
        points = self._network.to_frame(rows[:, :2], box)
        visibility = rows[:_NUM_BODY_POINTS, 3]
        return _Pose(points[:_NUM_BODY_POINTS], visibility > 0, points[33], points[34])


class PersonMask:
    """Mask of the people in a frame, by MediaPipe's selfie segmentation; on the CPU.

    Raises:
        UserError: a package is missing.
    """

    def __init__(self) -> None:
        self._network = _Network("selfie_segmentation/selfie_segmentation.tflite")
        self.description = Description(
            name="MediaPipe selfie segmentation",
            weights=self._network.origin,
            convention="pixels that show a person with a probability above one half",
            licence=_LICENCE,
        )

    def region(self, frame: Frame) -> NDArray[np.bool_]:
        """Mask of the people, H x W, true = person."""
        return self.probability(frame) > 0.5

    def probability(self, frame: Frame) -> NDArray[np.float32]:
        """How likely each pixel shows a person, H x W in [0, 1]."""
        (probability,) = self._network(resize_frame(frame, self._network.size))
        return stretch(probability[0, :, :, 0], frame.shape[:2])


class _Pose(NamedTuple):
    """A body pose.

    points: 33 x 2. seen: 33 bool, whether each point is likely visible.
    hips: the point between the hips. reach: a point on the circle around `hips` that encloses the
        body.
    """

    points: Points
    seen: NDArray[np.bool_]
    hips: NDArray[np.float64]
    reach: NDArray[np.float64]


class _Network:
    """A network from a .tflite file of the mediapipe package.

    size: (height, width) of its input picture. origin: description of its weights for results.
    """

    def __init__(self, path: str) -> None:
        interpreter = import_package("ai_edge_litert.interpreter")
        file = weight_file("mediapipe", f"modules/{path}")
        self._interpreter = interpreter.Interpreter(str(file))
        self._interpreter.allocate_tensors()
        (taken,) = self._interpreter.get_input_details()
        self._input = taken["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]
        self.size = int(taken["shape"][1]), int(taken["shape"][2])
        self.origin = f"mediapipe {version('mediapipe')}, {file.name}"

    def __call__(self, picture: Frame) -> list[NDArray[np.float32]]:
        """Outputs of the network for a picture of its input size."""
        self._interpreter.set_tensor(self._input, picture[None] / np.float32(255))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output) for output in self._outputs]

    def to_frame(self, points: NDArray[np.float32], box: Box) -> Points:
        """Convert K x 2 points from pixels of the input picture, whose edge is at 0, to pixels of
        the frame that the picture was cut out of at `box`.
        """
        height, width = self.size
        scale = np.array((box.width / width, box.height / height))
        return points * scale + (box.left, box.top) - 0.5


def _whole(frame: Frame) -> Box:
    """The smallest square that holds the frame."""
    height, width = frame.shape[:2]
    return with_aspect(Box(0, 0, width, height), (1, 1))


def _square(centre: NDArray[np.float64], side: float) -> Box:
    """The square with this centre, (x, y) as in Points."""
    left, top = centre + 0.5 - side / 2
    return Box(float(left), float(top), float(side), float(side))
