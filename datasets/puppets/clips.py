"""Puppets, the synthetic data set as a ClipSource; frames are drawn when they are read.

Every frame depends only on (seed, split, clip, frame). The test split has identities, motions and
backgrounds that the training split does not have.
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
from datasets.puppets.visibility import hidden_pixels
from datasets.source import Clip
from media.frames import Frame, Frames

_SPLITS = ("train", "test")
_FRAME_RATE = Fraction(25)
_CACHE_BYTES = 2**28  # for rendered frames, in each process that reads them


class Rendering(NamedTuple):
    """A picture of a puppet in front of a background."""

    frame: NDArray[np.float32]  # H x W x 3, RGB in [0, 1]
    foreground_mask: NDArray[
        np.float32
    ]  # H x W in [0, 1]: the share of the pixel that the figure covers


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


class _PuppetSet(NamedTuple):
    """The parameters that all puppets of a data set share; see `Puppets`."""

    seed: int
    split: str
    motion_scale: float


class Puppets:
    """A ClipSource of dancing puppets, one identity and one static background per clip.

    Clip i is the same for any number of clips, and frame t for any number of frames. `seed` is that
    of the data, not of a run, so that runs can be compared on the same puppets. `motion_scale`
    multiplies the swings, and so how far the poses of a clip differ.

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
        self.puppet_set = _PuppetSet(seed, split, motion_scale)
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
        """Iterate over the frames of clip `index`: uint8, H x W x 3."""
        for frame in range(self._num_frames):
            yield self.read(index, [frame])[0]

    def read(self, index: int, frames: Sequence[int]) -> Frames:
        """Draw frames of clip `index` in the given order: uint8, N x H x W x 3."""
        render = _frame_cache(self.image_size)
        return np.stack([render(self.puppet_set, index, frame) for frame in frames])

    def foreground_masks(self, index: int, frames: Sequence[int]) -> NDArray[np.float32]:
        """The true foreground masks of frames of clip `index`: N x H x W in [0, 1]."""
        return np.stack([self.render(index, frame).foreground_mask for frame in frames])

    def hidden_pixels(self, index: int, source: int, frames: Sequence[int]) -> NDArray[np.bool_]:
        """What frames of clip `index` show and frame `source` does not: N x H x W, bool."""
        poses = [self.pose(index, frame) for frame in (source, *frames)]
        identity, size = self.identity(index), self.image_size
        return np.stack([hidden_pixels(identity, poses[0], pose, size) for pose in poses[1:]])

    def render(self, index: int, frame: int) -> Rendering:
        """Draw one frame of clip `index` and its foreground mask."""
        return _render_frame(self.puppet_set, index, frame, self.image_size)

    def identity(self, index: int) -> Identity:
        """The identity of the puppet in clip `index`."""
        return _clip_content(self.puppet_set, index).identity

    def pose(self, index: int, frame: int) -> Pose:
        """The pose in a frame of clip `index`."""
        return _pose(self.puppet_set, index, frame)

    def background(self, index: int) -> Background:
        """The background of clip `index`."""
        return _clip_content(self.puppet_set, index).background

    def background_picture(self, index: int) -> NDArray[np.float32]:
        """The background of clip `index` without its puppet: H x W x 3 in [0, 1], read-only."""
        return _background_picture(self.background(index), self.image_size)


class _ClipContent(NamedTuple):
    """The parts of a clip that are the same in all its frames."""

    identity: Identity
    motion: Motion
    background: Background


@lru_cache(maxsize=4096)
def _clip_content(puppet_set: _PuppetSet, index: int) -> _ClipContent:
    place = (puppet_set.seed, _SPLITS.index(puppet_set.split), index)
    return _ClipContent(
        sample_identity(numpy_rng("puppet identity", *place)),
        sample_motion(numpy_rng("puppet motion", *place), puppet_set.motion_scale),
        sample_background(numpy_rng("puppet background", *place), puppet_set.split),
    )


def _pose(puppet_set: _PuppetSet, index: int, frame: int) -> Pose:
    return _clip_content(puppet_set, index).motion.pose(frame / float(_FRAME_RATE))


def _render_frame(
    puppet_set: _PuppetSet, index: int, frame: int, size: tuple[int, int]
) -> Rendering:
    content = _clip_content(puppet_set, index)
    return render(content.identity, _pose(puppet_set, index, frame), content.background, size)


@lru_cache
def _frame_cache(size: tuple[int, int]) -> Callable[[_PuppetSet, int, int], Frame]:
    """Return a renderer of uint8 frames that caches as many as fit into `_CACHE_BYTES`.

    So a small data set is drawn only once, not in every epoch.
    """

    @lru_cache(maxsize=_CACHE_BYTES // (3 * size[0] * size[1]))
    def render_uint8(puppet_set: _PuppetSet, index: int, frame: int) -> Frame:
        picture = _render_frame(puppet_set, index, frame, size).frame
        return np.rint(255 * picture).astype(np.uint8)

    return render_uint8


@lru_cache(maxsize=128)  # 25 MB at 128 x 128, 100 MB at 256 x 256
def _background_picture(background: Background, size: tuple[int, int]) -> Picture:
    picture = paint_background(background, size)
    picture.flags.writeable = False  # all frames of the clip share it
    return picture
