"""Makes training samples, two frames of one clip; random choices follow from seed and position."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from common.seeding import numpy_rng
from configs.schema import AugmentationConfig
from datasets.augmentation import NEUTRAL
from datasets.source import ClipSource
from media.video import VideoError

MAX_UNREADABLE_SHARE = 0.01  # of the clips; a larger share ends the run
_MAX_ATTEMPTS = 16  # clips that are tried for one sample before giving up


class SampleIndex(NamedTuple):
    """Position of a sample in the run; its random choices follow from (seed, epoch, sample)."""

    epoch: int
    sample: int


class UnreadableClip(NamedTuple):
    name: str
    reason: str


class Pair(NamedTuple):
    """One training sample; `PairBatch` has the same fields for a batch.

    frames: uint8, 2 x 3 x H x W, source then driving.
    color_factors, color_order: 2 x 4 each; the jitter that both frames share, and another one for
        the driving frame alone.
    placement: 4 numbers of the resize and crop that both frames share; None without a resize.
    unreadable: clips that failed while this sample was made.
    """

    frames: Tensor
    color_factors: Tensor
    color_order: Tensor
    placement: Tensor | None
    unreadable: list[UnreadableClip]


class PairBatch(NamedTuple):
    """A batch of B samples. Resize, crop and colour jitter are applied later, on the device.

    frames: uint8, B x 2 x 3 x H x W, source then driving.
    color_factors, color_order: B x 2 x 4 each, see `augmentation.jitter_colors`; the jitter that
        source and driving share, and another one for the driving frame alone, used by masks.
    placement: B x 4, see `augmentation.resize_and_crop`; None if nothing is resized.
    unreadable: clips that failed while this batch was made; other clips replaced them.
    """

    frames: Tensor
    color_factors: Tensor
    color_order: Tensor
    placement: Tensor | None
    unreadable: list[UnreadableClip]

    def to(self, device: torch.device) -> Self:
        """Copy the batch to `device`; to CUDA without waiting, since the memory is pinned."""
        non_blocking = device.type == "cuda"
        tensors = self._tensors().items()
        return self._replace(**{k: x.to(device, non_blocking=non_blocking) for k, x in tensors})

    def split(self, size: int | None) -> list[Self]:
        """Divide the batch into parts of `size` samples; None means one part."""
        if size is None:
            return [self]
        tensors = self._tensors()
        parts = zip(*(x.split(size) for x in tensors.values()), strict=True)
        return [self._replace(**dict(zip(tensors, part, strict=True))) for part in parts]

    def _tensors(self) -> dict[str, Any]:
        return {k: x for k, x in self._asdict().items() if isinstance(x, Tensor)}


class FramePairs(Dataset[Pair]):
    """Training samples of an epoch: `repeats` passes over the identities of `clips`.

    A sample is two frames of a random clip of its identity, drawn with replacement and sorted by
    time. Then, as published, source and driving may be exchanged, or else the picture mirrored.
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
        """Stop drawing from the clips with these indices, and from identities with no others."""
        repeats = self.length // len(self.identities)
        kept = ([clip for clip in group if clip not in clips] for group in self.identities)
        self.identities = [group for group in kept if group]
        self.length = repeats * len(self.identities)

    def __getitem__(self, place: SampleIndex) -> Pair:
        rng = numpy_rng("sample", self.seed, *place)
        frames, unreadable = self._read(place.sample % len(self.identities), rng)
        if rng.random() < self.augmentation.time_flip:
            frames = frames[::-1]
        elif rng.random() < self.augmentation.horizontal_flip:
            frames = frames[:, :, ::-1]
        channels_first = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
        shared, own = self._color_jitter(rng), self._color_jitter(rng)
        factors, order = (torch.stack(both) for both in zip(shared, own, strict=True))
        placement = self._placement(rng)
        return Pair(torch.from_numpy(channels_first), factors, order, placement, unreadable)

    def _read(
        self, identity: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, list[UnreadableClip]]:
        """Read two frames of a random clip of `identity`, or of another identity if it fails."""
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
        """Draw factors and order as torchvision's ColorJitter does.

        Factors are uniform about the neutral one and not negative.
        """
        a = self.augmentation
        strength = np.array((a.brightness, a.contrast, a.saturation, a.hue))
        low = np.maximum(np.subtract(NEUTRAL, strength), (0, 0, 0, -0.5))
        factors = rng.uniform(low, np.add(NEUTRAL, strength))
        order = rng.permutation(4)
        return torch.from_numpy(factors).float(), torch.from_numpy(order)

    def _placement(self, rng: np.random.Generator) -> Tensor | None:
        """Draw the size of the resized frame, and where the crop begins in it.

        This is drawn last, so that runs with and without it see the same frames and colours.
        """
        low, high = self.augmentation.resize
        if low == high == 1:
            return None
        ratio = rng.uniform(low, high)
        sides = self.clips.image_size
        resized = [max(1, int(side * ratio)) for side in sides]
        starts = [
            # A smaller frame is padded on both sides, a larger one cropped at random.
            -((side - new) // 2) if new <= side else int(rng.integers(new - side, endpoint=True))
            for side, new in zip(sides, resized, strict=True)
        ]
        return torch.tensor([*resized, *starts])


class BatchSchedule(Sampler[list[SampleIndex]]):
    """Yields the samples of every batch of a run, from (start_epoch, start_batch) on, without end.

    Each epoch is a permutation seeded by (seed, epoch); a last, incomplete batch is dropped.

    part, num_parts: the part of each batch to yield, as in `BatchRandom`.
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

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        epoch, first = self.start
        while True:
            order = numpy_rng("order", self.seed, epoch).permutation(self.num_samples)
            for batch in range(first, self.batches_per_epoch):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [SampleIndex(epoch, int(sample)) for sample in chosen[self.rows]]
            epoch, first = epoch + 1, 0


def collate(samples: Sequence[Pair]) -> PairBatch:
    """Stack samples to a batch, and join their lists of unreadable clips."""
    placements = [sample.placement for sample in samples if sample.placement is not None]
    return PairBatch(
        torch.stack([sample.frames for sample in samples]),
        torch.stack([sample.color_factors for sample in samples]),
        torch.stack([sample.color_order for sample in samples]),
        torch.stack(placements) if placements else None,
        [clip for sample in samples for clip in sample.unreadable],
    )


class FailureBudget:
    """Counts the clips that cannot be read, reports each once, and says if they are too many.

    With several processes each notes its own failures; join `failed` of all before `excess`.
    """

    def __init__(self, num_clips: int) -> None:
        self.num_clips = num_clips
        self.failed: set[str] = set()  # names

    def note(self, unreadable: Sequence[UnreadableClip]) -> list[str]:
        """Note failures, and return a line for each clip not reported before."""
        lines = []
        for name, reason in unreadable:
            if name not in self.failed:
                self.failed.add(name)
                lines.append(f"skipped: {reason}")
        return lines

    def excess(self) -> str | None:
        """Return a message if more than 1% of the clips have failed; else None."""
        if len(self.failed) <= MAX_UNREADABLE_SHARE * self.num_clips:
            return None
        return (
            f"data.root: {len(self.failed)} of {self.num_clips} clips cannot be read, more "
            f"than {MAX_UNREADABLE_SHARE:.0%}; remove or repair {', '.join(sorted(self.failed))}"
        )
