"""Assigns clips to the splits train and test by identity; no identity moves to the other split.

The identity of a clip is the part of its name before the #, or the whole name if it has none.
"""

import json
import os
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
DRAWN = "splits.json"  # file with the split of every identity for which one was drawn

ClipKey = tuple[str, str]  # split and name of a clip


def identity(name: str) -> str:
    """Return the identity of a clip by its name."""
    return name.split("#")[0]


def assign_splits(
    listed: Sequence[Listed],
    test_share: float,
    seed: int,
    finished: Set[ClipKey],
    drawn: Mapping[str, str],
) -> dict[str, str]:
    """Choose a split for each identity that has clips without a stated split.

    An identity keeps the split of its `finished` clips, the one `drawn` for it earlier, or the one
    that its other clips state; `split_identities` draws the others. Stated splits are checked.

    Raises:
        UserError: a clip or identity changed its split since an earlier run; or an identity has
            clips in both splits, so that its other clips could go to either.
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
    """Map each identity to the splits in which it has clips."""
    found = defaultdict(set)
    for split, name in places:
        found[identity(name)].add(split)
    return found


def shared_identities(places: Set[ClipKey]) -> list[str]:
    """List the identities with clips in both splits; clips without # in their name are ignored."""
    splits = _splits_of({(split, name) for split, name in places if "#" in name})
    return sorted(name for name, found in splits.items() if len(found) > 1)


def split_identities(
    identities: set[str], test_share: float, seed: int, known: Mapping[str, str]
) -> dict[str, str]:
    """Draw the split of each identity that is not `known`; their order does not matter.

    Each split gets at least one identity, except that test gets none if `test_share` is 0.

    Raises:
        UserError: there is a single identity, so that one of the splits would have none.
    """
    splits = {identity: known[identity] for identity in identities if identity in known}
    if not identities or len(splits) == len(identities):
        return splits
    if len(identities) == 1 and test_share > 0:
        raise UserError(
            f"--test-share {test_share:g}: there is one identity, {min(identities)} (the part of a "
            "name before the #), which cannot be in both splits; give train/ and test/"
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
    """Read the splits that `note_drawn` wrote; none before the first run.

    Raises:
        UserError: the file is damaged.
    """
    path = output / DRAWN
    if not os.path.lexists(path):  # a link that leads nowhere is an error
        return {}
    try:
        drawn = read_json(path)
        if not set(drawn.values()) <= set(SPLITS):
            raise ValueError
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{path}: damaged; remove it, or prepare into another folder") from None
    return dict(drawn)


def note_drawn(output: Path, splits: Mapping[str, str]) -> None:
    """Write the drawn splits, so that a later run keeps them even if there are new clips."""
    if splits:
        text = json.dumps(dict(sorted(splits.items())), indent=0, ensure_ascii=False)
        with replacing(output / DRAWN) as path:
            path.write_text(text + "\n", encoding="utf-8")
