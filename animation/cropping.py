"""Automatic crops: finds the figure and crops it as in the training data.

In a clip the crop follows the figure smoothly. This removes the figure's path across the picture
from its motion and keeps the movements of the head or body itself, which animating a head needs.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, median_filter
from torch import Tensor

from animation.branch_animators import frames_to_tensor
from branches.model import Model
from media.crops import Box, as_text, centre_box, cut_out, with_aspect
from media.frames import Frame
from media.timing import Clock, Times
from metrics.detectors.detector import Detector
from metrics.detectors.dlib_face import DlibFace
from metrics.detectors.packages import NotInstalled
from modules.keypoint_detector import Keypoints
from modules.mask_generator import MaskGenerator

# Medians over 13 talking-head clips cropped for training, 256 x 256, faces found by dlib.
FACE_MARGIN = 1.9  # side of the crop / side of the face
FACE_DROP = 0.12  # how far the face's middle is below the crop's middle / side of the face
# A crop whose side is a smaller share of the picture's shorter side is not used: then the picture
# shows a whole figure, of which the face is a small part.
SMALLEST_FACE_CROP = 0.25

# Chosen on puppets in larger pictures, for the best overlap with the frame of the training data.
MASK_MARGIN = 1.25  # side of the crop / side of the figure
MASK_TRIM = 0.02  # share of the mask's pixels that is ignored at each side, against specks
MASK_PASSES = 3  # each pass works on the crop of the one before
KEYPOINT_MARGIN = 2.5  # keypoints lie within the figure; further passes made the crop worse

SEARCH_SECONDS = 0.2  # time between the frames of a clip that are searched
MEDIAN_LENGTH = 5  # boxes in a running median, which one or two wrong ones do not change
MIDDLE_SECONDS = 0.5  # standard deviation of the Gaussian over time for the box's middle,
WIDTH_SECONDS = 2.0  # and for its width, whose changes are more visible
SMOOTHED_RATE = 120  # boxes a second, at most, that the Gaussian is applied to


class FaceDetector(Detector, Protocol):
    """Finds faces."""

    def face_box(self, frame: Frame) -> Box | None:
        """Box of the largest face, from the brows to the chin; None if there is no face."""
        ...


class FigureCrop(NamedTuple):
    """The crop around the figure in one picture.

    how: a line for the user on how it was found.
    """

    box: Box
    how: str


class FramedFigure(NamedTuple):
    """The crop around a figure in frame `position` of a clip."""

    position: int
    box: Box


class ClipCrop(NamedTuple):
    """Crops around the figure in a clip.

    boxes: one for each frame.
    how: a line for the user on how they were found.
    """

    boxes: list[Box]
    how: str


class _Finder(NamedTuple):
    """A way to find the figure.

    find: a function from a frame to the crop around its figure; None if it finds none.
    """

    name: str
    find: Callable[[Frame], Box | None]


class Cropper:
    """Finds the crop around a figure. It looks for a face first, then uses the model's mask, then
    the model's keypoints.

    Args:
        size: (height, width) that the model works at; crops have the same proportions.
        face_detector: None: do not look for faces.
    """

    def __init__(
        self,
        model: Model,
        size: tuple[int, int],
        device: torch.device,
        face_detector: FaceDetector | None,
    ) -> None:
        self._size = size
        self._device = device
        self._mask_threshold = model.mask_threshold
        self._finders: list[_Finder] = []
        if face_detector is not None:
            name = f"a face ({face_detector.description.name})"
            self._finders.append(_Finder(name, partial(self._find_face, face_detector)))
        if model.masks is not None:
            find = partial(self._find_mask, model.masks.mask_generator)
            self._finders.append(_Finder("the model's mask", find))
        if model.motion is not None and model.motion.has_keypoints:
            find = partial(self._find_keypoints, model.motion.detect)
            self._finders.append(_Finder("the model's keypoints", find))

    def figure_box(self, frame: Frame) -> FigureCrop:
        """The crop of one picture, uint8 H x W x 3; at its centre if no figure is found."""
        found = self._search(frame)
        if found is None:
            return FigureCrop(*self._centre_crop(_image_size(frame)))
        name, box = found
        return FigureCrop(box, f"cropped around {name} to {as_text(box)}")

    def clip_boxes(
        self, frames: Iterable[Frame], frame_rate: Fraction, times: Times | None = None
    ) -> ClipCrop:
        """Crops that follow the figure of a clip; memory does not grow with its frames.

        Every few frames are searched. Only the boxes of the way that found the figure most often
        (face, mask or keypoints) are used; they are interpolated and smoothed over time, without
        lag.

        Args:
            frames: uint8 H x W x 3 each, at `frame_rate` per second; at least one.
            times: times of frames that are not evenly spaced; see `media.timing`.
        """
        period = max(1, round(frame_rate * SEARCH_SECONDS))
        by_finder: dict[str, list[FramedFigure]] = {finder.name: [] for finder in self._finders}
        num_frames, image_size = 0, (0, 0)
        for position, frame in enumerate(frames):
            num_frames, image_size = position + 1, _image_size(frame)
            found = self._search(frame) if position % period == 0 else None
            if found is not None:
                name, box = found
                by_finder[name].append(FramedFigure(position, box))
        # A model without masks and keypoints has no finder, where no face detector is installed.
        name, best = max(by_finder.items(), key=lambda item: len(item[1]), default=("", []))
        if not best:
            box, how = self._centre_crop(image_size)
            return ClipCrop([box] * num_frames, how)
        num_searched = math.ceil(num_frames / period)
        how = f"cropped around {name}, seen in {len(best)} of the {num_searched} frames searched"
        clock = Clock(frame_rate, times)
        seconds = [float(clock.begin(position)) for position in range(num_frames)]
        return ClipCrop(interpolate_boxes(best, seconds, float(frame_rate), image_size), how)

    def _centre_crop(self, image_size: tuple[int, int]) -> tuple[Box, str]:
        """The crop at the centre of a picture without a figure, and a line on why it was chosen."""
        box = centre_box(image_size, self._size)
        reason = (
            "no figure found"
            if self._finders
            else "the model has neither masks nor keypoints, and no face detector is installed"
        )
        return box, f"{reason}, cropped at the centre to {as_text(box)}"

    def _search(self, frame: Frame) -> tuple[str, Box] | None:
        """The name of the first finder that finds a figure, and the crop around it."""
        for finder in self._finders:
            box = finder.find(frame)
            if box is not None:
                return finder.name, box
        return None

    def _find_face(self, detector: FaceDetector, frame: Frame) -> Box | None:
        face = detector.face_box(frame)
        if face is None:
            return None
        raised = face._replace(top=face.top - FACE_DROP * face.height)
        box = crop_around(raised, FACE_MARGIN, _image_size(frame), self._size)
        is_close = min(box.width, box.height) >= SMALLEST_FACE_CROP * min(_image_size(frame))
        return box if is_close else None

    @torch.inference_mode()
    def _find_mask(self, generator: MaskGenerator, frame: Frame) -> Box | None:
        box = self._whole(frame)
        for _ in range(MASK_PASSES):
            mask = generator(self._view(frame, box))[0, 0]
            rows, columns = torch.where(mask > self._mask_threshold)
            if not len(rows):
                return None
            top, bottom = _extent(rows, len(mask))
            left, right = _extent(columns, mask.shape[1])
            figure = _within(box, left, top, right, bottom)
            box = crop_around(figure, MASK_MARGIN, _image_size(frame), self._size)
        return box

    @torch.inference_mode()
    def _find_keypoints(self, detect: Callable[[Tensor], Keypoints], frame: Frame) -> Box | None:
        box = self._whole(frame)
        points = (detect(self._view(frame, box)).value[0] + 1) / 2
        (left, top), (right, bottom) = points.amin(0).tolist(), points.amax(0).tolist()
        figure = _within(box, left, top, right, bottom)
        if (
            max(figure.width, figure.height) < 1
        ):  # collapsed keypoints: they say nothing about the size
            return None
        return crop_around(figure, KEYPOINT_MARGIN, _image_size(frame), self._size)

    def _view(self, frame: Frame, box: Box) -> Tensor:
        """The crop `box` of `frame` at the model's size: 1 x 3 x H x W in [0, 1]."""
        return frames_to_tensor(cut_out(frame, box, self._size)[None], self._device)

    def _whole(self, frame: Frame) -> Box:
        """The smallest box of the model's proportions that contains the frame."""
        height, width = _image_size(frame)
        return with_aspect(Box(0, 0, width, height), self._size)


def installed_face_detector() -> FaceDetector | None:
    """The face detector of dlib; None if its packages are not installed."""
    try:
        return DlibFace()
    except NotInstalled:
        return None


def crop_around(
    figure: Box, margin: float, image_size: tuple[int, int], size: tuple[int, int]
) -> Box:
    """A crop around `figure` with the proportions of `size` (height, width).

    Its sides are `margin` times those of the figure, but not larger than a picture of `image_size`
    (height, width) allows. The crop is moved to lie within the picture. It reaches beyond the
    picture only if the figure alone needs a larger box.
    """
    tight, largest = with_aspect(figure, size), centre_box(image_size, size)
    width = max(tight.width, min(margin * tight.width, largest.width))
    height = width * size[0] / size[1]
    left, top = tight.left + (tight.width - width) / 2, tight.top + (tight.height - height) / 2
    return moved_inside(Box(left, top, width, height), image_size)


def moved_inside(box: Box, image_size: tuple[int, int]) -> Box:
    """Move `box` into the picture, separately along each axis.

    Along an axis where it is larger than the picture, move it so that it contains the picture.
    """
    height, width = image_size
    spare_x, spare_y = width - box.width, height - box.height
    left = min(max(box.left, min(0, spare_x)), max(0, spare_x))
    top = min(max(box.top, min(0, spare_y)), max(0, spare_y))
    return box._replace(left=left, top=top)


def interpolate_boxes(
    figures: list[FramedFigure],
    seconds: Sequence[float],
    frame_rate: float,
    image_size: tuple[int, int],
) -> list[Box]:
    """Compute a smooth crop for every frame from the crops of some frames.

    Single outliers are dropped, gaps are interpolated linearly, and the result is smoothed over
    time.

    Args:
        figures: the known crops, in order, all of the same proportions.
        seconds: time at which each frame is shown.
        frame_rate: average number of frames per second.
        image_size: (height, width) of the frames; crops are moved inside.
    """
    seen_at = [seconds[figure.position] for figure in figures]
    # The filter needs evenly spaced times. There are at most two for each frame, and the Gaussian
    # has a bounded width: a clip of three frames may state a billion a second, or a gap of years.
    most = 2 * len(seconds) / seconds[-1] if seconds[-1] > 0 else math.inf
    rate = min(frame_rate, SMOOTHED_RATE, most)
    moments = np.arange(seconds[-1] * rate + 1) / rate
    seen = np.array([figure.box for figure in figures])
    tracks = np.column_stack([seen[:, :2] + seen[:, 2:] / 2, seen[:, 2]])  # middle, width
    tracks = median_filter(tracks, size=(MEDIAN_LENGTH, 1), mode="nearest")
    deviations = (MIDDLE_SECONDS, MIDDLE_SECONDS, WIDTH_SECONDS)
    x, y, widths = (
        np.interp(
            seconds,
            moments,
            gaussian_filter1d(np.interp(moments, seen_at, track), deviation * rate, mode="nearest"),
        )
        for track, deviation in zip(tracks.T, deviations, strict=True)
    )
    heights = widths * seen[0, 3] / seen[0, 2]
    boxes = np.column_stack([x - widths / 2, y - heights / 2, widths, heights])
    return [moved_inside(Box(*box), image_size) for box in boxes.tolist()]


def _extent(indices: Tensor, num_pixels: int) -> tuple[float, float]:
    """Extent of the pixels at `indices` without the share MASK_TRIM, in shares of `num_pixels`."""
    first, last = np.quantile(indices.cpu().numpy(), (MASK_TRIM, 1 - MASK_TRIM)).tolist()
    return first / num_pixels, (last + 1) / num_pixels


def _within(box: Box, left: float, top: float, right: float, bottom: float) -> Box:
    """The rectangle whose edges are these shares of the sides of `box`."""
    return Box(
        box.left + left * box.width,
        box.top + top * box.height,
        (right - left) * box.width,
        (bottom - top) * box.height,
    )


def _image_size(frame: Frame) -> tuple[int, int]:
    return frame.shape[0], frame.shape[1]
