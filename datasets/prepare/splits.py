"""Which clips are for training and which for the test; who was in one split never joins the other.

The identity of a clip is what stands before the # of its name, or all of the name.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import replacing
from common.json_files import read_json
from common.seeding import sequence
from datasets.prepare.footage import Listed

SPLITS = ("train", "test")
# The split for each name that data sets give one.
PARTITIONS = {"train": "train", "dev": "train", "test": "test", "val": "test"}
DRAWN = "splits.json"  # the split of every identity for which one was drawn

ClipKey = tuple[str, str]  # split and name of a clip


def identity(name: str) -> str:
    return name.split("#")[0]


def assign_splits(
    listed: Sequence[Listed],
    test_share: float,
    seed: int,
    finished: Set[ClipKey],
    drawn: Mapping[str, str],
) -> dict[str, str]:
    """The split of each identity of which a clip states none; stated ones are checked only.

    Identities that are `finished`, or were `drawn` earlier, or whose other clips state a split,
    stay there; see `split_identities` for the others.

    Raises:
        UserError: a clip changed from one split to the other, or an identity is in both, so that
            its other clips could go to either.
    """
    stated = {(clip.split, clip.name) for clip in listed if clip.split is not None}
    now, earlier = _splits_of(stated), _splits_of(finished)
    for split, name in sorted(stated - finished):
        (other,) = set(SPLITS) - {split}
        changed_clip = (other, name) in finished and (other, name) not in stated
        changed_identity = earlier[identity(name)] == {other} and other not in now[identity(name)]
        if changed_clip or changed_identity:
            what = f"clip {name}" if changed_clip else f"identity {identity(name)}"
            raise UserError(
                f"{split}/{name}: {what} was prepared for {other}/ in an earlier run; rename it, "
                "put it back, or choose another --output"
            )
    unsplit = {identity(clip.name) for clip in listed if clip.split is None}
    known: dict[str, str] = {}
    for name in sorted(unsplit):
        splits = now[name] | earlier[name] | ({drawn[name]} if name in drawn else set())
        if len(splits) > 1:
            raise UserError(
                f"identity {name}: has clips in train/ and in test/, and others that are in "
                "neither; say for each of them where it belongs"
            )
        if splits:
            known[name] = splits.pop()
    return split_identities(unsplit, test_share, seed, known)


def _splits_of(places: Set[ClipKey]) -> defaultdict[str, set[str]]:
    """The splits in which each identity has clips."""
    found = defaultdict(set)
    for split, name in places:
        found[identity(name)].add(split)
    return found


def shared_identities(places: Set[ClipKey]) -> list[str]:
    """What stands before the # in names of both splits."""
    splits = _splits_of({(split, name) for split, name in places if "#" in name})
    return sorted(name for name, found in splits.items() if len(found) > 1)


def split_identities(
    identities: set[str], test_share: float, seed: int, known: Mapping[str, str]
) -> dict[str, str]:
    """The split of each identity; the same whatever their order.

    At least one is for the test, unless `test_share` is 0, and one for training.

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
    num_test = min(num_test, len(identities) - 1)
    num_test -= sum(split == "test" for split in splits.values())
    rest = sorted(identities - splits.keys())
    order = np.random.default_rng(sequence("split", seed)).permutation(len(rest))
    for place, index in enumerate(order):
        splits[rest[index]] = "test" if place < num_test else "train"
    return splits


def read_drawn(output: Path) -> dict[str, str]:
    """The splits that `note_drawn` wrote; none before the first run.

    Raises:
        UserError: the file is damaged.
    """
    path = output / DRAWN
    if not path.exists():
        return {}
    try:
        drawn = read_json(path)
        if not set(drawn.values()) <= set(SPLITS):
            raise ValueError
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{path}: damaged; remove it, or prepare into another folder") from None
    return dict(drawn)


def note_drawn(output: Path, splits: Mapping[str, str]) -> None:
    """Write what was drawn: an interrupted run goes on with the same splits, whatever joins."""
    if splits:
        text = json.dumps(dict(sorted(splits.items())), indent=0, ensure_ascii=False)
        with replacing(output / DRAWN) as path:
            path.write_text(text + "\n", encoding="utf-8")
