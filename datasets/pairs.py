"""Training samples: two frames of one clip, with every random choice seeded by its place."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from config import AugmentationConfig
from datasets.source import ClipSource
from datasets.video import VideoError
from seeding import numpy_rng

MAX_UNREADABLE_SHARE = 0.01  # of the clips; more end the run
_MAX_ATTEMPTS = 16  # other clips tried when one cannot be read


class Place(NamedTuple):
    """Where a sample stands in the run: its random choices follow from (seed, epoch, sample)."""

    epoch: int
    sample: int


class UnreadableClip(NamedTuple):
    name: str
    reason: str


class Pair(NamedTuple):
    """One sample. frames: uint8, 2 x 3 x H x W, source then driving.

    color_factors, color_order: 2 x 4 each; the jitter that the two frames share, and another one
    of the driving frame alone.
    """

    frames: Tensor
    color_factors: Tensor
    color_order: Tensor
    unreadable: list[UnreadableClip]


class PairBatch(NamedTuple):
    """B samples on their way to the device; the colour jitter is applied there.

    frames: uint8, B x 2 x 3 x H x W, source then driving.
    color_factors, color_order: B x 2 x 4 each, see `augmentation.color_matrices`; the jitter that
        source and driving share, and another one of the driving frame alone, for masks.
    unreadable: clips that failed while this batch was made; others took their place.
    """

    frames: Tensor
    color_factors: Tensor
    color_order: Tensor
    unreadable: list[UnreadableClip]

    def to(self, device: torch.device) -> Self:
        """The same batch on `device`; to CUDA, which gets pinned memory, without waiting."""
        non_blocking = device.type == "cuda"
        return self._replace(
            frames=self.frames.to(device, non_blocking=non_blocking),
            color_factors=self.color_factors.to(device, non_blocking=non_blocking),
            color_order=self.color_order.to(device, non_blocking=non_blocking),
        )

    def split(self, size: int | None) -> list[Self]:
        """The batch in parts of `size` samples; whole for None."""
        if size is None:
            return [self]
        return [
            self._replace(frames=frames, color_factors=factors, color_order=order)
            for frames, factors, order in zip(
                self.frames.split(size),
                self.color_factors.split(size),
                self.color_order.split(size),
                strict=True,
            )
        ]


class FramePairs(Dataset[Pair]):
    """`repeats` passes over the identities of `clips`; each sample is two frames of one clip.

    The frames are drawn with replacement and sorted; then, as published, either the time is
    flipped or, if not, the picture may be mirrored.
    """

    def __init__(
        self, clips: ClipSource, repeats: int, augmentation: AugmentationConfig, seed: int
    ) -> None:
        self.clips = clips
        self.augmentation = augmentation
        self.seed = seed
        groups: dict[str, list[int]] = {}
        for i, clip in enumerate(clips.clips):
            groups.setdefault(clip.identity, []).append(i)
        self.identities = list(groups.values())
        self.length = repeats * len(self.identities)

    def __len__(self) -> int:
        return self.length

    def leave_out(self, clips: Collection[int]) -> None:
        """Draw no more from the clips of these indices, nor from identities that have no other."""
        repeats = self.length // len(self.identities)
        kept = ([clip for clip in group if clip not in clips] for group in self.identities)
        self.identities = [group for group in kept if group]
        self.length = repeats * len(self.identities)

    def __getitem__(self, place: Place) -> Pair:
        rng = numpy_rng("sample", self.seed, *place)
        frames, unreadable = self._read(place.sample % len(self.identities), rng)
        if rng.random() < self.augmentation.time_flip:
            frames = frames[::-1]
        elif rng.random() < self.augmentation.horizontal_flip:
            frames = frames[:, :, ::-1]
        channels_first = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
        shared, own = self._color_jitter(rng), self._color_jitter(rng)
        factors, order = (torch.stack(both) for both in zip(shared, own, strict=True))
        return Pair(torch.from_numpy(channels_first), factors, order, unreadable)

    def _read(
        self, identity: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, list[UnreadableClip]]:
        """Two frames of a random clip of `identity`; of another one while clips fail."""
        unreadable: list[UnreadableClip] = []
        for _ in range(_MAX_ATTEMPTS):
            clip = int(rng.choice(self.identities[identity]))
            try:
                pair = np.sort(rng.integers(self.clips.num_frames(clip), size=2))
                return self.clips.read(clip, pair.tolist()), unreadable
            except VideoError as error:
                unreadable.append(UnreadableClip(self.clips.clips[clip].name, str(error)))
                identity = int(rng.integers(len(self.identities)))
        raise VideoError(f"{_MAX_ATTEMPTS} clips in a row cannot be read; {unreadable[-1].reason}")

    def _color_jitter(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        a = self.augmentation
        strength = np.array((a.brightness, a.contrast, a.saturation, a.hue))
        neutral = np.array((1.0, 1.0, 1.0, 0.0))
        factors = np.maximum(neutral + strength * rng.uniform(-1, 1, size=4), (0, 0, 0, -0.5))
        order = rng.permutation(4)
        return torch.from_numpy(factors).float(), torch.from_numpy(order)


class BatchSchedule(Sampler[list[Place]]):
    """Every batch of a run, from (start_epoch, start_batch) on; endless.

    Each epoch is a permutation seeded by (seed, epoch); its last, incomplete batch is dropped.

    part, num_parts: which part of each batch, of how many of the same size; as in `Draws`.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        start_epoch: int = 0,
        start_batch: int = 0,
        part: int = 0,
        num_parts: int = 1,
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.start = (start_epoch, start_batch)
        self.batches_per_epoch = num_samples // batch_size
        share = batch_size // num_parts
        self.rows = slice(part * share, (part + 1) * share)

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, first = self.start
        while True:
            order = numpy_rng("order", self.seed, epoch).permutation(self.num_samples)
            for batch in range(first, self.batches_per_epoch):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [Place(epoch, int(sample)) for sample in chosen[self.rows]]
            epoch, first = epoch + 1, 0


def collate(samples: Sequence[Pair]) -> PairBatch:
    """Stack the samples; the reports of unreadable clips are joined."""
    return PairBatch(
        torch.stack([sample.frames for sample in samples]),
        torch.stack([sample.color_factors for sample in samples]),
        torch.stack([sample.color_order for sample in samples]),
        [clip for sample in samples for clip in sample.unreadable],
    )


class FailureBudget:
    """Reports each clip that turns out unreadable once, and knows when it is more than 1% of them.

    With several processes each notes its own; `failed` is then to be joined before `excess`.
    """

    def __init__(self, num_clips: int) -> None:
        self.num_clips = num_clips
        self.failed: set[str] = set()  # names

    def note(self, unreadable: Sequence[UnreadableClip]) -> list[str]:
        """One line for each clip not reported before."""
        lines = []
        for name, reason in unreadable:
            if name not in self.failed:
                self.failed.add(name)
                lines.append(f"skipped: {reason}")
        return lines

    def excess(self) -> str | None:
        """What to tell the user where more than 1% of the clips have failed."""
        if len(self.failed) <= MAX_UNREADABLE_SHARE * self.num_clips:
            return None
        return (
            f"data.root: {len(self.failed)} of {self.num_clips} clips cannot be read, more "
            f"than {MAX_UNREADABLE_SHARE:.0%}; remove or repair {', '.join(sorted(self.failed))}"
        )
