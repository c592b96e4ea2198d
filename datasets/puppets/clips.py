"""The embedded data set: synthetic articulated characters, drawn on the fly, with their truth.

Everything is a pure function of (seed, split, clip, frame). The test split has identities, motions
and backgrounds that the training split does not have.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.seeding import numpy_rng
from datasets.puppets.background import Background, Picture, paint_background, sample_background
from datasets.puppets.figure import draw_figure
from datasets.puppets.identity import Identity, sample_identity
from datasets.puppets.pose import Motion, Pose, sample_motion
from datasets.source import Clip
from media.frames import Frame, Frames

_SPLITS = ("train", "test")
_FRAME_RATE = Fraction(25)
_CACHE_BYTES = 2**28  # of rendered frames, in each process that reads them


class Rendering(NamedTuple):
    """A puppet in front of a background."""

    frame: NDArray[np.float32]  # H x W x 3, RGB in [0, 1]
    foreground_mask: NDArray[
        np.float32
    ]  # H x W in [0, 1]: the share of the pixel the figure covers


def render(
    identity: Identity, pose: Pose, background: Background, size: tuple[int, int]
) -> Rendering:
    """Draw `identity` in `pose` on `background`; `size` is (height, width).

    The figure and its mask do not depend on the background: the frame is
    `figure + (1 - foreground_mask) * background`, the figure premultiplied by its mask.
    """
    figure = draw_figure(identity, pose, size)
    behind = (1 - figure.foreground_mask)[..., None] * _background_picture(background, size)
    return Rendering(figure.colour + behind, figure.foreground_mask)


class _Troupe(NamedTuple):
    """What all puppets of a data set share; see `Puppets`."""

    seed: int
    split: str
    motion_scale: float


class Puppets:
    """A ClipSource of dancing puppets, one identity and one static background per clip.

    Clip i is the same whatever the number of clips, and frame t whatever the number of frames.
    `seed` belongs to the data, not to a run: runs that are compared see the same puppets.
    `motion_scale` stretches their swings: how far the poses of a clip differ.

    Raises:
        ValueError: the split is neither "train" nor "test".
    """

    def __init__(
        self,
        split: str,
        num_clips: int,
        num_frames: int,
        image_size: tuple[int, int],
        seed: int,
        motion_scale: float = 1.0,
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(f"split is {split!r}: puppets have the splits train and test")
        self.split = split
        self.troupe = _Troupe(seed, split, motion_scale)
        self.image_size = image_size
        names = [f"puppet-{index:05d}" for index in range(num_clips)]
        self.clips: Sequence[Clip] = [Clip(name, identity=name) for name in names]
        self._num_frames = num_frames

    def num_frames(self, index: int) -> int:
        """Number of frames of clip `index`."""
        return self._num_frames

    def frame_rate(self, index: int) -> Fraction:
        """Frames per second of clip `index`."""
        return _FRAME_RATE

    def stream(self, index: int) -> Iterator[Frame]:
        """All frames of clip `index` in order: uint8, H x W x 3."""
        for frame in range(self._num_frames):
            yield self.read(index, [frame])[0]

    def read(self, index: int, frames: Sequence[int]) -> Frames:
        """Frames of clip `index` in the order asked for: uint8, N x H x W x 3."""
        render = _frame_cache(self.image_size)
        return np.stack([render(self.troupe, index, frame) for frame in frames])

    def foreground_masks(self, index: int, frames: Sequence[int]) -> NDArray[np.float32]:
        """The true foreground of the same frames: N x H x W in [0, 1]."""
        return np.stack([self.render(index, frame).foreground_mask for frame in frames])

    def render(self, index: int, frame: int) -> Rendering:
        """One frame of clip `index` and its foreground mask."""
        return _render_frame(self.troupe, index, frame, self.image_size)

    def identity(self, index: int) -> Identity:
        """Who dances in clip `index`."""
        return _cast(self.troupe, index).identity

    def pose(self, index: int, frame: int) -> Pose:
        """The pose in a frame of clip `index`."""
        return _pose(self.troupe, index, frame)

    def background(self, index: int) -> Background:
        """What is behind the puppet of clip `index`."""
        return _cast(self.troupe, index).background

    def background_picture(self, index: int) -> NDArray[np.float32]:
        """The background of clip `index` without its puppet: H x W x 3 in [0, 1], read-only."""
        return _background_picture(self.background(index), self.image_size)


class _Cast(NamedTuple):
    """What is the same in all frames of a clip."""

    identity: Identity
    motion: Motion
    background: Background


@lru_cache(maxsize=4096)
def _cast(troupe: _Troupe, index: int) -> _Cast:
    place = (troupe.seed, _SPLITS.index(troupe.split), index)
    return _Cast(
        sample_identity(numpy_rng("puppet identity", *place)),
        sample_motion(numpy_rng("puppet motion", *place), troupe.motion_scale),
        sample_background(numpy_rng("puppet background", *place), troupe.split),
    )


def _pose(troupe: _Troupe, index: int, frame: int) -> Pose:
    return _cast(troupe, index).motion.pose(frame / float(_FRAME_RATE))


def _render_frame(troupe: _Troupe, index: int, frame: int, size: tuple[int, int]) -> Rendering:
    cast = _cast(troupe, index)
    return render(cast.identity, _pose(troupe, index, frame), cast.background, size)


@lru_cache
def _frame_cache(size: tuple[int, int]) -> Callable[[_Troupe, int, int], Frame]:
    """A renderer of uint8 frames that remembers as many as fit into `_CACHE_BYTES`.

    A small set, seen again in every epoch, is then drawn only once.
    """

    @lru_cache(maxsize=_CACHE_BYTES // (3 * size[0] * size[1]))
    def render_uint8(troupe: _Troupe, index: int, frame: int) -> Frame:
        picture = _render_frame(troupe, index, frame, size).frame
        return np.rint(255 * picture).astype(np.uint8)

    return render_uint8


@lru_cache(maxsize=128)  # 25 MB at 128 x 128, 100 MB at 256 x 256
def _background_picture(background: Background, size: tuple[int, int]) -> Picture:
    picture = paint_background(background, size)
    picture.flags.writeable = False  # it is shared by all frames of the clip
    return picture
