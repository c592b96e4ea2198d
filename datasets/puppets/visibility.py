"""Which pixels of a puppet's frame were hidden in another frame of its clip."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from datasets.puppets.canvas import Canvas, Place, evaluate
from datasets.puppets.colour import Colour
from datasets.puppets.figure import paint_figure
from datasets.puppets.identity import Fabric, Identity
from datasets.puppets.pose import Pose
from datasets.puppets.shapes import Field, Shape

# A point of a part counts as shown by a pixel this near to it on the part. The samples of two
# frames lie up to .7 pixels apart, and limbs stretch at the outer side of a bent joint.
_REACH: Final = 1.5  # pixels


class SurfaceCanvas(Canvas):
    """Notes which point of which part each pixel shows, in place of colours.

    part: H x W, the number of the part in the order of painting, or -1 for the background.
    point: H x W x 2, the place on the part (across, along) in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size)
        self.part: NDArray[np.int32] = np.full(size, -1, np.int32)
        self.point: NDArray[np.float32] = np.zeros((*size, 2), np.float32)
        self._num_parts = 0

    def paint(
        self,
        place: Place,
        shape: Shape,
        fabric: Fabric,
        hem: float = math.inf,
        below: Fabric | None = None,
    ) -> None:
        """Note the pixels of which a part covers more than half."""
        number = self._num_parts
        self._num_parts += 1
        window = self.window(place, shape.box, 0.0)
        if window is None:
            return
        surface, pixels = evaluate(place, shape, window)
        shown = pixels < 0
        self.part[window][shown] = number
        point = np.stack(np.broadcast_arrays(surface.across, surface.along), axis=-1)
        self.point[window][shown] = place.scale * np.broadcast_to(point, (*shown.shape, 2))[shown]

    def draw(self, place: Place, shape: Shape, colour: Colour, opacity: float = 1.0) -> None:
        """Marks are no parts: they belong to the part under them."""


def hidden_pixels(
    identity: Identity, source: Pose, driving: Pose, size: tuple[int, int]
) -> NDArray[np.bool_]:
    """The pixels of the driving frame that show what the source frame does not.

    That is background behind the figure of the source, and points of the figure that another part
    covers there or that lie outside of the frame. No warping of the source can show them.

    Returns:
        H x W of the frame of `size` (height, width) in pose `driving`.
    """
    before, now = SurfaceCanvas(size), SurfaceCanvas(size)
    paint_figure(before, identity, source)
    paint_figure(now, identity, driving)
    return not_shown(before, now)


def not_shown(before: SurfaceCanvas, now: SurfaceCanvas) -> NDArray[np.bool_]:
    """The pixels of `now` whose point, or background, is nowhere in `before`: H x W.

    Background stands still, so each of its pixels was hidden if it was a part's. The same parts
    must have been painted on both canvases.
    """
    hidden: NDArray[np.bool_] = (now.part < 0) & (before.part >= 0)
    for number in np.unique(now.part[now.part >= 0]):
        wanted, shown = now.part == number, before.part == number
        distance: Field = np.full(np.count_nonzero(wanted), np.inf, np.float32)
        if shown.any():
            distance = cKDTree(before.point[shown]).query(now.point[wanted])[0]
        hidden[wanted] = distance > _REACH
    return hidden
