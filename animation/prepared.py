"""An animation whose inputs and settings are checked, ready to compute its frames."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from animation.background_swap import BackgroundSwapper
from animation.branch_animators import BranchAnimator, animate, frames_to_tensor
from animation.inputs import Driving
from animation.layouts import AnimatedBatch, Layout, LayoutName
from animation.read_ahead import prefetch
from common.errors import UserError
from media.crops import Paster
from media.frames import Frame, HasRemarks


class ReferenceChoice(NamedTuple):
    """The reference frame of relative motion.

    position: its number among the driving frames, from 0.
    frame: the frame at the model's size.
    distance: distance of its keypoints to the source's; see animation/reference.py.
    """

    position: int
    frame: Frame
    distance: float


class _Uploaded(NamedTuple):
    """A frame, and the same on the device, 1 x 3 x H x W in [0, 1]."""

    frame: Frame
    tensor: Tensor


class Animation:
    """An animation: source, driving frames and backgrounds, all at the model's size.

    Attributes:
        frame_rate: frame rate of the driving frames and the result; the average if it varies.
        times: times of frames that are not evenly spaced, else None; see `media.timing`.
        num_frames: number of driving frames; None if it is not known. The result has as many, or
            fewer if a background ends earlier or a clip is damaged.
        reference: the reference frame; None for motion without one.
        is_transparent: whether the result is only the figure, with an alpha channel.

    Args:
        more_sources: more pictures of the source's figure, for a model that takes several.
        clips: the clips that are read, by name; their remarks are added to the notes.
        notes: lines for the user on what was chosen.
    """

    def __init__(
        self,
        animator: BranchAnimator,
        source: Frame,
        driving: Driving,
        *,
        reference: ReferenceChoice | None,
        swapper: BackgroundSwapper | None,
        backgrounds: Iterable[Frame] | None,
        paster: Paster | None,
        is_transparent: bool,
        batch_size: int,
        notes: Sequence[str],
        more_sources: Sequence[Frame] = (),
        clips: Mapping[str, HasRemarks] = MappingProxyType({}),
    ) -> None:
        self.source = source
        self.is_transparent = is_transparent
        self.frame_rate = driving.frame_rate
        self.times = driving.times
        self.num_frames = driving.num_frames
        self.reference = reference
        self._more_sources = more_sources
        self._notes = [*notes]
        self._clips = clips
        self._animator = animator
        self._driving = driving.frames
        self._swapper = swapper
        self._backgrounds = backgrounds
        self._paster = paster
        self._batch_size = batch_size

    @property
    def notes(self) -> list[str]:
        """Lines for the user: how pictures are fitted, the reference frame, remarks on the clips.

        While the clips are read, more remarks may come.
        """
        remarks = [f"{name}: {line}" for name, clip in self._clips.items() for line in clip.remarks]
        masks = [] if self._swapper is None else self._swapper.remarks
        return [*self._notes, *remarks, *masks]

    def note(self, line: str) -> None:
        """Add a line to the notes."""
        self._notes.append(line)

    def frames(self) -> Iterator[Frame]:
        """Compute the frames of the result: uint8 H x W x 3, or H x W x 4 if transparent."""
        layout = self.layout("result")
        for batch in self.batches():
            yield from layout.arrange(batch)

    def batches(self, *, read_ahead: bool = False) -> Generator[AnimatedBatch, None, None]:
        """Animate and swap backgrounds batch by batch; memory does not grow with their number.

        Args:
            read_ahead: read the next two batches of driving frames and backgrounds in threads,
                which end when this generator is closed.
        """
        if not read_ahead:
            yield from self._animated(self._driving, self._backgrounds)
            return
        num_ahead = 2 * self._batch_size
        with ExitStack() as opened:
            driving = opened.enter_context(closing(prefetch(self._driving, num_ahead)))
            backgrounds = None
            if self._backgrounds is not None:
                ahead = prefetch(self._backgrounds, num_ahead)
                backgrounds = opened.enter_context(closing(ahead))
            yield from self._animated(driving, backgrounds)

    def _animated(
        self, driving_frames: Iterable[Frame], background_frames: Iterable[Frame] | None
    ) -> Iterator[AnimatedBatch]:
        backgrounds = None if background_frames is None else iter(background_frames)
        if self._swapper is not None:
            self._swapper.restart()
        moved = animate(
            self._animator,
            self.source,
            driving_frames,
            self._batch_size,
            reference=None if self.reference is None else self.reference.frame,
            more_sources=self._more_sources,
        )
        still: _Uploaded | None = None
        for driving, animated in moved:
            if self._swapper is None or backgrounds is None:
                swapped = None if self._swapper is None else self._swapper.cut_out(animated)
                yield AnimatedBatch(self.source, driving, animated, None, swapped)
                continue
            background_frames = list(islice(backgrounds, len(driving)))
            count = len(background_frames)
            if background_frames:
                first = background_frames[0]
                # A still background is the same array for all frames: one upload, one mask.
                if not all(frame is first for frame in background_frames):
                    shown = np.stack(background_frames)
                    pictures = frames_to_tensor(shown, self._animator.device)
                else:
                    shown = np.broadcast_to(first, (count, *first.shape))
                    if still is None or still.frame is not first:
                        tensor = frames_to_tensor(first[None], self._animator.device)
                        still = _Uploaded(first, tensor)
                    pictures = still.tensor
                swapped = self._swapper.swap(animated[:count], pictures)
                yield AnimatedBatch(self.source, driving[:count], animated[:count], shown, swapped)
            if count < len(driving):
                return

    def layout(self, name: LayoutName | None, *, show_masks: bool = False) -> Layout:
        """Build the layout `name` of the frames to write; None means `result`.

        Args:
            show_masks: add columns with the masks.

        Raises:
            UserError: this animation lacks pictures of the layout, or their sizes do not fit
                side by side.
        """
        if show_masks and self.is_transparent:
            raise UserError("--show-masks: a transparent result stands alone; use --save-masks")
        if name in (None, "result"):
            if show_masks:
                raise UserError(
                    "--show-masks adds columns; use it with --layout side-by-side or demo"
                )
            return Layout("result", self.is_transparent, paster=self._paster)
        if self.is_transparent:
            raise UserError(
                f"--layout {name}: transparent shows the figure alone; use --layout result"
            )
        if self._paster is not None:
            raise UserError(
                f"--layout {name}: --paste-back gives frames of the source's size, which stand "
                "alone; use --layout result"
            )
        if name == "demo" and not self.has_networks:
            raise UserError(
                "--layout demo shows pictures by BGBase and BGRefine, which are not used here; "
                "give a --background with --compose network, or use --layout side-by-side"
            )
        source_mask = None
        if show_masks and self._swapper is not None:
            source = frames_to_tensor(self.source[None], self._animator.device)
            source_mask = self._swapper.mask_of_source(source)
        return Layout(name, show_masks=show_masks, source_mask=source_mask)

    @property
    def device(self) -> torch.device:
        """Device that the networks run on."""
        return self._animator.device

    @property
    def has_networks(self) -> bool:
        """Whether BGBase and BGRefine are used."""
        return self._swapper is not None and self._swapper.networks is not None
