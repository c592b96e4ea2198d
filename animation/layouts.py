"""Layouts: arrange pictures of an animation side by side in the frames of the result."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Self, get_args, overload

import numpy as np
from torch import Tensor

from animation.background_swap import SwappedFrames
from media.crops import Paster
from media.frames import Frame, Frames
from media.visualization import grey_to_rgb, to_uint8

LayoutName = Literal["result", "side-by-side", "demo"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)


class AnimatedBatch(NamedTuple):
    """B frames of an animation.

    source: uint8 H x W x 3.
    driving, background: uint8 B x H x W x 3; background is None if there is none.
    animated: output of the animator, B x 3 x H x W in [0, 1].
    swapped: masks and swapped backgrounds; None if the animation needs no masks.
    """

    source: Frame
    driving: Frames
    animated: Tensor
    background: Frames | None
    swapped: SwappedFrames | None


class _Pasted(Sequence[Frame]):
    """Frames that are pasted into a picture each time they are taken. A picture of 134 megapixels
    takes 400 MB, and so would each frame of a batch.
    """

    def __init__(self, paster: Paster, frames: Frames) -> None:
        self._paster = paster
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    @overload
    def __getitem__(self, number: int) -> Frame: ...

    @overload
    def __getitem__(self, number: slice) -> Self: ...

    def __getitem__(self, number: int | slice) -> Frame | Self:
        if isinstance(number, slice):
            return type(self)(self._paster, self._frames[number])
        return self._paster.paste(self._frames[number])


class Layout:
    """Arranges the pictures of a batch as frames of the result.

    Args:
        name: `result`: only the result; `side-by-side`: source, driving, result; `demo`: source,
            driving, animated, background, BGBase, BGRefine, and the result if it is none of these.
        transparent: the result is only the figure: RGBA, colours not multiplied by alpha.
        show_masks: more columns show the masks of source, animated frame and, if there is one,
            background.
        source_mask: mask of the source, 1 x 1 x h x w; None if it is not known.
        paster: puts the result back into the uncropped source, if given.
    """

    def __init__(
        self,
        name: LayoutName,
        transparent: bool = False,
        show_masks: bool = False,
        source_mask: Tensor | None = None,
        paster: Paster | None = None,
    ) -> None:
        if (transparent or paster) and name != "result":
            raise ValueError(
                f"a transparent or pasted result stands alone, found the layout {name}"
            )
        self.name = name
        self.transparent = transparent
        self.show_masks = show_masks
        self.source_mask = source_mask
        self.paster = paster

    def arrange(self, batch: AnimatedBatch) -> Frames | Sequence[Frame]:
        """The frames, uint8 B x H x (columns * W) x 3, or x 4 if transparent.

        Those that are pasted into the source are made when they are taken, one at a time.
        """
        if self.name == "result":
            result = self._result(batch)
            if self.paster is None:
                return result
            return _Pasted(self.paster, result)
        columns = [np.broadcast_to(batch.source, batch.driving.shape), batch.driving]
        if self.name == "side-by-side":
            columns.append(self._result(batch))
        else:
            # `Animation.layout` allows this layout only if BGBase and BGRefine are used.
            swapped, background = batch.swapped, batch.background
            assert swapped is not None
            assert background is not None
            assert swapped.base is not None
            assert swapped.refined is not None
            columns += [to_uint8(batch.animated), background]
            columns += [to_uint8(swapped.base), to_uint8(swapped.refined)]
            if swapped.result is not swapped.refined:
                columns.append(self._result(batch))
        return np.concatenate(columns + self._masks(batch), axis=2)

    def _result(self, batch: AnimatedBatch) -> Frames:
        if batch.swapped is None:
            return to_uint8(batch.animated)
        if self.transparent:
            figure = batch.animated if batch.swapped.figure is None else batch.swapped.figure
            return np.concatenate((to_uint8(figure), to_uint8(batch.swapped.alpha)), axis=3)
        result = batch.swapped.result
        return to_uint8(batch.animated if result is None else result)

    def _masks(self, batch: AnimatedBatch) -> list[Frames]:
        if not self.show_masks or batch.swapped is None:
            return []
        masks = [self.source_mask, batch.swapped.foreground_mask, batch.swapped.background_mask]
        return [grey_frames(mask, batch.driving) for mask in masks if mask is not None]


def grey_frames(mask: Tensor, like: Frames) -> Frames:
    """Convert `mask`, B (or 1) x 1 x h x w in [0, 1], to grey frames in the shape of `like`."""
    grey = to_uint8(grey_to_rgb(mask, (like.shape[1], like.shape[2])))
    return np.broadcast_to(grey, like.shape)
