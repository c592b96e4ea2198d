"""From the `data` section to clips and training pairs, with the checks before training."""

from pathlib import Path

from config import Config, DataConfig
from datasets.clips import ClipFolder, inspect_clips
from datasets.pack_writer import is_pack
from datasets.packed import PackedClips
from datasets.pairs import MAX_UNREADABLE_SHARE, FramePairs
from datasets.puppets import Puppets
from datasets.source import ClipSource
from errors import UserError

_NUM_NAMED = 5  # unreadable clips in a message


def build_source(data: DataConfig, split: str) -> ClipSource:
    """The clips of one split.

    Raises:
        UserError: the folder or the split is missing, empty, or packed and damaged.
    """
    if data.kind == "puppets":
        num_clips = {"train": data.puppets.num_train_clips, "test": data.puppets.num_test_clips}
        if split not in num_clips:
            raise UserError(f"split {split}: puppets have the splits train and test")
        return build_puppets(data, split, num_clips[split])
    assert data.root is not None  # the config's rules require it for clips
    id_sampling = data.id_sampling and split == "train"  # evaluation takes every clip
    folder = Path(data.root) / split
    if is_pack(folder):
        return PackedClips(folder, data.size, data.fit, id_sampling)
    return ClipFolder(Path(data.root), split, data.size, data.fit, id_sampling)


def build_puppets(data: DataConfig, split: str, num_clips: int) -> Puppets:
    """The first `num_clips` puppets of a split, however many of them the config asks for."""
    puppets = data.puppets
    return Puppets(
        split, num_clips, puppets.num_frames, data.size, puppets.seed, puppets.motion_scale
    )


def build_pairs(config: Config) -> FramePairs:
    """The training pairs.

    Raises:
        UserError: as `build_source`, or fewer samples in an epoch than one batch needs.
    """
    data, train = config.data, config.train
    pairs = FramePairs(build_source(data, "train"), data.repeats, data.augmentation, config.seed)
    if len(pairs) < train.batch_size:
        groups = "ids" if data.id_sampling else "clips"
        raise UserError(
            f"train.batch_size: {len(pairs.identities)} {groups} x {data.repeats} repeats, batch "
            f"size {train.batch_size}: nothing would train; raise data.repeats or lower the batch"
        )
    return pairs


def preflight(clips: ClipSource, max_unreadable: float = MAX_UNREADABLE_SHARE) -> str:
    """A few lines on what there is to train or evaluate on; every clip is opened, if not packed.

    Raises:
        UserError: more than the share `max_unreadable` of the clips cannot be read; names them.
    """
    if isinstance(clips, Puppets):
        height, width = clips.image_size
        return (
            f"{clips.split}: {len(clips.clips)} puppets, {clips.num_frames(0)} frames each, "
            f"{width} x {height} pixels"
        )
    if isinstance(clips, PackedClips):
        return clips.inspect().summary()
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
    return report.summary()
