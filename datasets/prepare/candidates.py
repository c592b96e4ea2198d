"""Finding the clips to prepare, and their split.

A folder has its clips in `train/` and `test/`, or all together; then identities are split. Clips
may lie in subfolders, whose names go before theirs: id00012/21Uxsk56VDQ/00001.mp4 of the VoxCeleb2
tree becomes id00012#21Uxsk56VDQ#00001. Names such as id10280#NXjT3732Ekg#001093#001192.mp4 stay as
they are. A TFRecord file is as many clips as it has records.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.clips import LAYOUT
from datasets.images import IMAGE_SUFFIXES
from datasets.prepare.boxes import Listed, read_boxes
from datasets.prepare.footage import Footage, RecordClip, Unreadable, WholeClip
from datasets.prepare.records import SUFFIXES as RECORD_SUFFIXES
from datasets.prepare.records import find_records
from datasets.video import VideoError, is_clip, natural_order
from errors import UserError
from seeding import sequence

SPLITS = ("train", "test")


class Candidate(NamedTuple):
    """A clip to be: its name is unique in its split."""

    split: str
    name: str
    footage: Footage


def find_candidates(
    folder: Path,
    metadata: Path | None,
    test_share: float,
    seed: int,
    known: Mapping[str, str],
) -> list[Candidate]:
    """Every clip of `folder`, or those that `metadata` lists over its videos.

    Where neither says which split they belong to, `test_share` of the identities are for the test,
    at least one, drawn by `seed`; identities that are `known` stay in the split that they have.

    Raises:
        UserError: nothing is found, or the layout is none of those that are read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if metadata is not None:
        listed = read_boxes(metadata, folder)
    elif any((folder / split).is_dir() for split in SPLITS):
        listed = [
            Listed(name, split, footage)
            for split in SPLITS
            if (folder / split).is_dir()
            for name, footage in _clips_in(folder / split)
        ]
    else:
        listed = [Listed(name, None, footage) for name, footage in _clips_in(folder)]
    if not listed:
        raise UserError(f"{folder}: no clip in it; {LAYOUT}, or a TFRecord file")
    unsplit = {_identity(clip.name) for clip in listed if clip.split is None}
    splits = split_identities(unsplit, test_share, seed, known)
    found = [Candidate(clip.split or splits[_identity(clip.name)], *clip[::2]) for clip in listed]
    counts = Counter((split, name) for split, name, _ in found)
    (split, name), count = counts.most_common(1)[0]
    if count > 1:
        raise UserError(f"{metadata or folder}: {count} clips would be {split}/{name}; rename them")
    return sorted(found, key=lambda clip: (clip.split, natural_order(clip.name)))


def split_identities(
    identities: set[str], test_share: float, seed: int, known: Mapping[str, str]
) -> dict[str, str]:
    """The split of each identity; the same whatever their order.

    Raises:
        UserError: there is a single identity, so that one of the splits would have none.
    """
    splits = {identity: known[identity] for identity in identities if identity in known}
    if not identities or len(splits) == len(identities):
        return splits
    if len(identities) == 1 and test_share > 0:
        raise UserError(
            f"--test-share {test_share:g}: there is one identity, {min(identities)} (what stands "
            "before the # of a name), which cannot be in both splits; give train/ and test/"
        )
    num_test = max(1, round(test_share * len(identities))) if test_share > 0 else 0
    num_test -= sum(split == "test" for split in splits.values())
    rest = sorted(identities - splits.keys())
    order = np.random.default_rng(sequence("split", seed)).permutation(len(rest))
    for place, index in enumerate(order):
        splits[rest[index]] = "test" if place < num_test else "train"
    return splits


def _identity(name: str) -> str:
    return name.split("#")[0]


def _clips_in(folder: Path) -> list[tuple[str, Footage]]:
    found = [*_walk(folder, [])]
    stems = Counter(stem for stem, _, _ in found)
    return [(stem if stems[stem] == 1 else full, footage) for stem, full, footage in found]


def _walk(folder: Path, above: Sequence[str]) -> Iterator[tuple[str, str, Footage]]:
    """Name without and with suffix, and footage of all clips below `folder`."""
    for path in sorted(folder.iterdir(), key=lambda entry: natural_order(entry.name)):
        if path.name.startswith("."):
            continue
        full = "#".join([*above, path.name])
        stem = "#".join([*above, path.name if path.is_dir() else path.stem])
        if path.is_dir() and not _holds_frames(path):
            yield from _walk(path, [*above, path.name])
        elif path.suffix.lower() in RECORD_SUFFIXES:
            yield from _records(path, stem)
        elif is_clip(path):
            yield stem, full, WholeClip(path)


def _holds_frames(folder: Path) -> bool:
    return any(
        entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
        for entry in folder.iterdir()
    )


def _records(path: Path, stem: str) -> Iterator[tuple[str, str, Footage]]:
    number = 0
    try:
        for offset, num_bytes in find_records(path):
            name = f"{stem}_{number:05d}"
            yield name, name, RecordClip(path, number, offset, num_bytes)
            number += 1
    except VideoError as error:
        name = f"{stem}_{number:05d}"
        yield name, name, Unreadable(str(path), str(error))
