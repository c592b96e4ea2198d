"""Builds clips and training pairs from the `data` section, and checks the data before training."""

import zlib
from pathlib import Path

from common.distributed import processes as distributed
from common.errors import UserError
from common.limits import chosen_limits
from configs.schema import Config, DataConfig
from datasets.clips import ClipFolder, ClipReport, inspect_clips
from datasets.pack_writer import is_pack
from datasets.packed import PackedClips
from datasets.pairs import MAX_UNREADABLE_SHARE, FramePairs
from datasets.puppets.clips import Puppets
from datasets.source import ClipSource, HasChecksum

_NUM_NAMED = 5  # unreadable clips that a message names


def build_source(data: DataConfig, split: str) -> ClipSource:
    """Open the clips of one split.

    Raises:
        UserError: the folder or the split is missing or empty, or its pack is damaged.
    """
    if data.kind == "puppets":
        num_clips = {"train": data.puppets.num_train_clips, "test": data.puppets.num_test_clips}
        if split not in num_clips:
            raise UserError(f"split {split}: puppets have the splits train and test")
        return build_puppets(data, split, num_clips[split])
    assert data.root is not None  # the config's rules require it for clips
    id_sampling = data.id_sampling and split == "train"  # evaluation takes every clip
    folder, limits = Path(data.root) / split, chosen_limits(data.max_pixels)
    if is_pack(folder):
        return PackedClips(folder, data.size, data.fit, id_sampling, limits)
    return ClipFolder(Path(data.root), split, data.size, data.fit, id_sampling, limits)


def build_puppets(data: DataConfig, split: str, num_clips: int) -> Puppets:
    """Return the first `num_clips` puppets of a split; the config's own number is not used."""
    puppets = data.puppets
    return Puppets(
        split, num_clips, puppets.num_frames, data.size, puppets.seed, puppets.motion_scale
    )


def build_pairs(config: Config) -> FramePairs:
    """Build the training pairs.

    Raises:
        UserError: as `build_source`, or an epoch has fewer samples than a batch.
    """
    data = config.data
    pairs = FramePairs(build_source(data, "train"), data.repeats, data.augmentation, config.seed)
    _require_a_batch(pairs, config)
    return pairs


def leave_out_single_frames(pairs: FramePairs, config: Config) -> None:
    """Leave clips with a single frame out, whose source and driving would be the same picture.

    In a folder of clips this needs the frame counts, which `preflight` takes.

    Raises:
        UserError: the remaining samples of an epoch are fewer than a batch.
    """
    clips = pairs.clips
    if isinstance(clips, ClipFolder):
        pairs.leave_out({i for i, count in clips.known_num_frames.items() if count < 2})
    elif isinstance(clips, PackedClips):
        pairs.leave_out({i for i, clip in enumerate(clips.packed) if clip.num_frames < 2})
    _require_a_batch(pairs, config)


def _require_a_batch(pairs: FramePairs, config: Config) -> None:
    data, train = config.data, config.train
    if len(pairs) < train.batch_size:
        groups = "ids" if data.id_sampling else "clips"
        raise UserError(
            f"train.batch_size: {len(pairs.identities)} {groups} x {data.repeats} repeats, batch "
            f"size {train.batch_size}: nothing would train; raise data.repeats or lower the batch"
        )


def preflight(clips: ClipSource, max_unreadable: float = MAX_UNREADABLE_SHARE) -> str:
    """Check the clips before training or evaluation, and describe them in a few lines.

    Every clip is opened, unless it is packed.

    Raises:
        UserError: more than the share `max_unreadable` of the clips cannot be read; names them. Or
            no clip has two frames.
    """
    if isinstance(clips, Puppets):
        height, width = clips.image_size
        return (
            f"{clips.split}: {len(clips.clips)} puppets, {clips.num_frames(0)} frames each, "
            f"{width} x {height} pixels"
        )
    if isinstance(clips, PackedClips):
        report = clips.inspect()
        _require_two_frames(report)
        return report.summary()
    assert isinstance(clips, ClipFolder)
    report = inspect_clips(clips)
    if len(report.unreadable) > max_unreadable * report.num_clips:
        reasons = list(report.unreadable.values())
        more = f"; and {len(reasons) - _NUM_NAMED} more" if len(reasons) > _NUM_NAMED else ""
        raise UserError(
            f"{clips.folder}: {len(report.unreadable)} of {report.num_clips} clips cannot be read, "
            f"more than {max_unreadable:.0%}; remove or repair them: "
            f"{'; '.join(reasons[:_NUM_NAMED])}{more}"
        )
    _require_two_frames(report)
    return report.summary()


def share_num_frames(clips: ClipSource) -> None:
    """Give all processes the frame counts of rank 0, since counting opens every clip."""
    if isinstance(clips, ClipFolder):
        # Sent as pairs, because the keys of a JSON object cannot be numbers.
        clips.known_num_frames = dict(distributed.gather([*clips.known_num_frames.items()])[0])


def clip_facts(clips: ClipSource) -> dict[str, object]:
    """Facts about the clips, by name, that must be the same in all processes.

    Raises:
        UserError: a file is gone, or cannot be read.
    """
    names = "\n".join(clip.name for clip in clips.clips)
    try:
        checksum = clips.content_checksum() if isinstance(clips, HasChecksum) else 0
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    return {
        "number of clips": len(clips.clips),
        "checksum of their names": zlib.crc32(names.encode(errors="surrogateescape")),
        "checksum of the data": checksum,
    }


def _require_two_frames(report: ClipReport) -> None:
    if report.too_short and len(report.too_short) + len(report.unreadable) == report.num_clips:
        raise UserError(
            f"{report.folder}: no clip has more than one frame, so source and driving frame would "
            "be the same picture; give clips of two frames or more (images of one moving thing "
            "belong in a folder of their own, which is one clip)"
        )
