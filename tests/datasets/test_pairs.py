"""Tests of reproducible samples, of the schedule of batches, and of unreadable clips."""

import itertools
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from configs.schema import AugmentationConfig
from datasets.pairs import (
    BatchSchedule,
    FailureBudget,
    FramePairs,
    SampleIndex,
    UnreadableClip,
    collate,
)
from media.video import VideoError
from tests.helpers.factories import MemoryClips

NAMES = [f"{i}#clip.mp4" for i in range(6)]


def make_pairs(names=NAMES, repeats=1, seed=0, broken=(), num_frames=6, **augmentation: Any):
    clips = MemoryClips(names, num_frames, broken)
    return FramePairs(clips, repeats, AugmentationConfig(**augmentation), seed)


def origin(frames):
    """Read (clip, frame number) of source and driving from a corner pixel of unmirrored frames."""
    return [tuple(frame[:2, 0, 0].tolist()) for frame in frames]


def same(a, b):
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in a._fields[:3])


def test_sample_is_two_frames_of_one_clip():
    sample = make_pairs(time_flip=0.0, horizontal_flip=0.0)[SampleIndex(0, 3)]
    assert sample.frames.shape == (2, 3, 16, 16)
    assert sample.frames.dtype == torch.uint8
    (source_clip, first), (driving_clip, second) = origin(sample.frames)
    assert source_clip == driving_clip == 3
    assert first <= second
    assert not sample.unreadable


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_follow_from_seed_and_place_alone(num_workers):
    pairs = make_pairs(repeats=2)
    schedule = BatchSchedule(len(pairs), 4, seed=0)
    loader = DataLoader(pairs, batch_sampler=schedule, num_workers=num_workers, collate_fn=collate)
    batches = list(itertools.islice(loader, 4))
    for batch, places in zip(batches, schedule, strict=False):
        assert same(batch, collate([make_pairs(repeats=2)[place] for place in places]))


def test_another_epoch_sample_or_seed_differs():
    pairs = make_pairs(repeats=2)
    here = pairs[SampleIndex(0, 1)]
    assert same(here, pairs[SampleIndex(0, 1)])
    assert not same(here, pairs[SampleIndex(1, 1)])
    assert not same(here, pairs[SampleIndex(0, 7)])  # the second pass over the same clip
    assert not same(here, make_pairs(repeats=2, seed=1)[SampleIndex(0, 1)])


def test_time_flip_reverses_the_sorted_order():
    forward = make_pairs(time_flip=0.0, horizontal_flip=0.0)
    backward = make_pairs(time_flip=1.0, horizontal_flip=1.0)  # it never does both
    for index in range(6):
        plain, flipped = (
            forward[SampleIndex(0, index)].frames,
            backward[SampleIndex(0, index)].frames,
        )
        assert torch.equal(flipped, plain.flip(0))


def test_horizontal_flip_mirrors_both_frames():
    plain = make_pairs(time_flip=0.0, horizontal_flip=0.0)[SampleIndex(0, 2)].frames
    mirrored = make_pairs(time_flip=0.0, horizontal_flip=1.0)[SampleIndex(0, 2)].frames
    assert torch.equal(mirrored, plain.flip(-1))


def test_frames_are_drawn_with_replacement_from_the_whole_clip():
    pairs = make_pairs(["a#1.mp4"], repeats=200, num_frames=4, time_flip=0.0, horizontal_flip=0.0)
    drawn = {
        tuple(number for _, number in origin(pairs[SampleIndex(0, i)].frames)) for i in range(200)
    }
    assert drawn == {(a, b) for a in range(4) for b in range(a, 4)}


def test_repeats_and_identities_make_the_epoch():
    assert len(make_pairs(repeats=3)) == 18
    by_id = make_pairs(
        ["a#1.mp4", "a#2.mp4", "b#1.mp4"], repeats=40, time_flip=0, horizontal_flip=0
    )
    assert len(by_id) == 80
    clips = [origin(by_id[SampleIndex(0, index)].frames)[0][0] for index in range(80)]
    assert set(clips[0::2]) == {0, 1}  # one of the clips of a
    assert set(clips[1::2]) == {2}


def test_color_jitter_stays_in_its_range_and_neutral_is_neutral():
    pairs = make_pairs(repeats=50, brightness=0.1, contrast=0.0, saturation=3.0, hue=0.2)
    samples = [pairs[SampleIndex(0, index)] for index in range(300)]
    factors = torch.cat([sample.color_factors for sample in samples])
    brightness, contrast, saturation, hue = factors.unbind(1)
    assert 0.9 <= brightness.min() < 0.91
    assert 1.09 < brightness.max() <= 1.1
    assert (contrast == 1).all()
    # As in torchvision's ColorJitter, a factor is never negative, and as likely near 0 as near 4.
    assert 0 <= saturation.min() < 0.05
    assert 3.95 < saturation.max() <= 4
    assert saturation.mean().item() == pytest.approx(2, abs=0.2)
    assert -0.2 <= hue.min() < -0.19
    for jitter in range(2):
        orders = {tuple(sample.color_order[jitter].tolist()) for sample in samples}
        assert orders == set(itertools.permutations(range(4)))


def test_two_jitters_a_sample_drawn_apart():
    pairs = make_pairs(repeats=50)
    samples = [pairs[SampleIndex(0, index)] for index in range(300)]
    batch = collate(samples)
    assert batch.color_factors.shape == batch.color_order.shape == (300, 2, 4)
    assert batch.color_factors.dtype == torch.float32
    shared, own = (batch.color_factors - torch.tensor([1.0, 1.0, 1.0, 0.0])).unbind(1)
    assert not (shared == own).any()
    # Both span their range, and they are uncorrelated.
    assert min(shared.abs().amax(), own.abs().amax()) > 0.09
    correlation = torch.corrcoef(torch.stack((shared.flatten(), own.flatten())))[0, 1]
    assert abs(correlation.item()) < 0.1
    assert (batch.color_order[:, 0] != batch.color_order[:, 1]).any(dim=1).double().mean() > 0.9


def test_strength_of_the_jitter_changes_no_other_draw():
    """Runs with and without jitter draw the same frames."""
    weak, strong = make_pairs(brightness=0.0, hue=0.0), make_pairs(brightness=0.3, hue=0.3)
    for index in range(6):
        a, b = weak[SampleIndex(0, index)], strong[SampleIndex(0, index)]
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.color_order, b.color_order)
        assert torch.equal(a.color_factors[:, 1:3], b.color_factors[:, 1:3])


def test_resize_keeps_its_range_and_the_crop_lies_within():
    pairs = make_pairs(repeats=100, resize=[0.5, 2.0])
    placements = torch.stack([pairs[SampleIndex(0, index)].placement for index in range(600)])
    height, width, *starts = placements.unbind(1)
    assert torch.equal(height, width)  # the sides share a ratio
    assert set(height.tolist()) == set(range(8, 32))  # these are int(16 * ratio)
    for start in starts:
        smaller = height <= 16
        assert torch.equal(start[smaller], -((16 - height[smaller]) // 2))  # padded on both sides
        room = height[~smaller] - 16
        assert (start[~smaller] >= 0).all()
        assert (start[~smaller] <= room).all()
        assert {0, 1} == set(start[height == 17].tolist())  # the crop may touch both ends
    assert not torch.equal(*starts)


def test_resize_is_off_by_default_and_changes_no_other_draw():
    plain, resized = make_pairs(), make_pairs(resize=[0.9, 1.1])
    for index in range(6):
        a, b = plain[SampleIndex(0, index)], resized[SampleIndex(0, index)]
        assert same(a, b)
        assert a.placement is None
        assert b.placement is not None
    assert collate([plain[SampleIndex(0, 0)]]).placement is None
    batch = collate([resized[SampleIndex(0, index)] for index in range(4)])
    parts = batch.split(2)
    assert torch.equal(torch.cat([part.placement for part in parts]), batch.placement)
    assert torch.equal(batch.to(torch.device("cpu")).placement, batch.placement)


def test_unreadable_clip_is_replaced_and_reported():
    pairs = make_pairs(broken=[NAMES[1]])
    sample = pairs[SampleIndex(0, 1)]
    assert (
        origin(
            make_pairs(broken=[NAMES[1]], time_flip=0, horizontal_flip=0)[SampleIndex(0, 1)].frames
        )[0][0]
        != 1
    )
    assert sample.unreadable[0] == UnreadableClip(NAMES[1], f"{NAMES[1]}: broken")
    batch = collate([pairs[SampleIndex(0, index)] for index in range(3)])
    assert {clip.name for clip in batch.unreadable} == {NAMES[1]}


def test_nothing_readable_is_an_error():
    with pytest.raises(VideoError, match="broken"):
        make_pairs(broken=NAMES)[SampleIndex(0, 0)]


def take(schedule, count):
    return list(itertools.islice(schedule, count))


def test_every_epoch_is_a_permutation_without_its_incomplete_batch():
    schedule = BatchSchedule(num_samples=11, batch_size=3, seed=5)
    assert schedule.batches_per_epoch == 3
    batches = take(schedule, 9)
    orders = []
    for epoch in range(3):
        places = [place for batch in batches[3 * epoch : 3 * epoch + 3] for place in batch]
        assert all(place.epoch == epoch for place in places)
        samples = [place.sample for place in places]
        assert len(set(samples)) == 9
        assert set(samples) <= set(range(11))
        orders.append(samples)
    assert orders[0] != orders[1] != orders[2]
    assert take(BatchSchedule(11, 3, seed=6), 3) != batches[:3]


@pytest.mark.parametrize(("epoch", "batch"), [(0, 0), (0, 2), (1, 0), (1, 2), (2, 1)])
def test_resumed_schedule_yields_exactly_the_rest(epoch, batch):
    whole = take(BatchSchedule(11, 3, seed=5), 12)
    rest = take(BatchSchedule(11, 3, 5, epoch, batch), 12 - 3 * epoch - batch)
    assert rest == whole[3 * epoch + batch :]


@pytest.mark.parametrize("num_parts", [2, 3])
def test_processes_share_every_batch_without_duplicates(num_parts):
    whole = take(BatchSchedule(20, 6, seed=5), 7)
    parts = [
        take(BatchSchedule(20, 6, seed=5, part=part, num_parts=num_parts), 7)
        for part in range(num_parts)
    ]
    assert [
        [place for part in batch for place in part] for batch in zip(*parts, strict=True)
    ] == whole
    assert {len(part) for part in parts[0]} == {6 // num_parts}


def test_split_batch_keeps_every_sample():
    pairs = make_pairs()
    batch = collate([pairs[SampleIndex(0, index)] for index in range(6)])
    assert batch.split(None) == [batch]
    parts = batch.split(2)
    assert [len(part.frames) for part in parts] == [2, 2, 2]
    for name in ("frames", "color_factors", "color_order"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(batch, name))


def failure(name):
    return UnreadableClip(name, f"{name}: torn")


def test_each_failure_is_reported_once():
    budget = FailureBudget(num_clips=200)
    assert budget.note([]) == []
    assert budget.note([failure("a.mp4"), failure("a.mp4")]) == ["skipped: a.mp4: torn"]
    assert budget.note([failure("a.mp4")]) == []
    assert budget.note([failure("b.mp4")]) == ["skipped: b.mp4: torn"]  # 1% is allowed


def test_more_than_one_percent_are_too_many():
    budget = FailureBudget(num_clips=200)
    budget.note([failure("a.mp4"), failure("b.mp4")])
    assert budget.excess() is None
    budget.note([failure("c.mp4")])
    assert budget.excess() == (
        "data.root: 3 of 200 clips cannot be read, more than 1%; remove or repair a.mp4, b.mp4, "
        "c.mp4"
    )
