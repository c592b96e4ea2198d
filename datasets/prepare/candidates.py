"""Finds the clips to prepare in a folder, and gives them names.

The folder has its clips in `train/` (or `dev/`) and `test/` (or `val/`), or all together; a single
folder mp4/ around them, as in VoxCeleb2, is skipped. Clips may lie in subfolders, whose names
become part of theirs: id00012/21Uxsk56VDQ/00001.mp4 becomes id00012#21Uxsk56VDQ#00001. Names such
as id10280#NXjT3732Ekg#001093#001192.mp4 stay as they are. A subfolder of pictures is one clip with
the pictures as frames. Each record of a TFRecord file is a clip.
"""

import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.safe_paths import MAX_TEXT, check_name, is_folder, resolve
from datasets.clips import LAYOUT
from datasets.prepare.footage import Footage, Listed, WholeClip
from datasets.prepare.importers.bair_records import SUFFIXES as RECORD_SUFFIXES
from datasets.prepare.importers.bair_records import record_clips
from datasets.prepare.importers.listed import read_list
from datasets.prepare.splits import PARTITIONS, identity
from media.folder_summary import counted, log_left_out
from media.images import IMAGE_SUFFIXES
from media.system_files import partition, user_entries
from media.video import CONTAINER_SUFFIXES, is_clip, natural_order

WRAPPER = "mp4"  # a folder that names a kind of file, not an identity

logger = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A clip to be prepared; its name is unique in its split."""

    split: str
    name: str
    footage: Footage


def find_clips(folder: Path, metadata: Path | None) -> list[Listed]:
    """Find every clip of `folder`, or with `metadata` those parts of its videos that it lists.

    Raises:
        UserError: there are no clips, the layout of the folder is unknown, or the name of a clip
            is refused by `check_name`.
    """
    if not is_folder(folder):
        raise UserError(f"{folder}: no such folder")
    left_out: list[Path] = []
    links: list[Path] = []
    if metadata is not None:
        listed = read_list(metadata, folder)
    else:
        listed = _walk_splits(folder, left_out, links)
    empty, others = partition(left_out, is_folder)
    log_left_out(folder, others, len(empty))
    if links:
        logger.warning(
            "%s: left out %s to folders that are searched anyway: %s",
            *(folder, counted(len(links), "link"), links[0]),
        )
    if not listed:
        raise UserError(f"{folder}: no clip in it; {LAYOUT}, or a TFRecord file")
    for clip in listed:
        try:
            check_name(clip.name, MAX_TEXT)
            clip.footage.source.encode()
        except ValueError as error:
            raise UserError(f"{clip.footage.source!a}: {error}; rename it") from None
    return listed


def in_splits(listed: Iterable[Listed], splits: dict[str, str]) -> list[Candidate]:
    """Put each clip into the split that it states, or else into that of its identity, in order.

    Raises:
        UserError: two clips of a split have the same name.
    """
    found = [
        Candidate(clip.split or splits[identity(clip.name)], clip.name, clip.footage)
        for clip in listed
    ]
    counts = Counter((clip.split, clip.name) for clip in found)
    ((split, name), count) = counts.most_common(1)[0]
    if count > 1:
        twice = [clip.footage.source for clip in found if (clip.split, clip.name) == (split, name)]
        raise UserError(f"{twice[0]}: {count} clips would be {split}/{name}; rename {twice[1]}")
    return sorted(found, key=lambda clip: (clip.split, natural_order(clip.name)))


def _walk_splits(folder: Path, left_out: list[Path], links: list[Path]) -> list[Listed]:
    entries = _entries(folder)
    splits = [entry for entry in entries if entry.name in PARTITIONS and is_folder(entry)]
    if not splits:
        found = _Walk(left_out, links).clips_in(folder)
        return [Listed(name, None, footage) for name, footage in found]
    for entry in entries:
        if entry not in splits and next(_Walk([], []).clips([entry]), None) is not None:
            raise UserError(
                f"{entry}: has clips, but lies beside {splits[0].name}/; move it into one of "
                f"{', '.join(f'{name}/' for name in PARTITIONS)}, or away"
            )
    return [
        Listed(name, PARTITIONS[entry.name], footage)
        for entry in splits
        for name, footage in _Walk(left_out, links).clips_in(entry)
    ]


class _Walk:
    """Searches folders for clips, each folder once, even if several links lead to it.

    Args:
        left_out: files that are no clips, and empty folders, are added to this list.
        links: links to folders that are searched anyway are added to this list.
    """

    def __init__(self, left_out: list[Path], links: list[Path]) -> None:
        self._left_out = left_out
        self._links = links
        self._visited: set[Path] = set()
        self._waiting: deque[tuple[Path, list[str]]] = deque()  # links, which are followed last

    def clips_in(self, folder: Path) -> Iterator[tuple[str, Footage]]:
        """Yield name and footage of each clip in `folder`.

        If its only folder is WRAPPER, the entries of that are used in its place.
        """
        self._visited.add(resolve(folder))
        entries = _entries(folder)
        folders = [entry for entry in entries if is_folder(entry)]
        if [entry.name for entry in folders] == [WRAPPER] and not _holds_frames(folders[0]):
            self._visited.add(resolve(folders[0]))
            entries = [entry for entry in entries if entry not in folders] + _entries(folders[0])
        return self.clips(entries)

    def clips(self, entries: Sequence[Path]) -> Iterator[tuple[str, Footage]]:
        """Yield name and footage of each clip among `entries` and below them."""
        for entry in entries:
            yield from self._entry(entry, [])
        while self._waiting:
            yield from self._folder(*self._waiting.popleft())

    def _entry(self, path: Path, above: list[str]) -> Iterator[tuple[str, Footage]]:
        if is_folder(path):
            if not path.is_symlink():
                yield from self._folder(path, above)
            elif resolve(path.parent).is_relative_to(resolve(path)):
                raise UserError(f"{path}: a link to a folder that it lies in; remove it")
            else:
                self._waiting.append((path, above))
        elif path.suffix.lower() in RECORD_SUFFIXES:
            yield from record_clips(path, "#".join([*above, path.stem]))
        elif is_clip(path):
            yield "#".join([*above, path.stem]), WholeClip(path)
        else:
            self._left_out.append(path)

    def _folder(self, path: Path, above: list[str]) -> Iterator[tuple[str, Footage]]:
        real = resolve(path)
        if real in self._visited:
            self._links.append(path)
            return
        self._visited.add(real)
        if _holds_frames(path):
            yield "#".join([*above, path.name]), WholeClip(path)
            return
        entries = _entries(path)
        if not entries:
            self._left_out.append(path)
        for entry in entries:
            yield from self._entry(entry, [*above, path.name])


def _entries(folder: Path) -> list[Path]:
    return sorted(user_entries(folder), key=lambda entry: natural_order(entry.name))


def _holds_frames(folder: Path) -> bool:
    entries = _entries(folder)
    pictures = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES]
    clips = (*CONTAINER_SUFFIXES, *RECORD_SUFFIXES)
    others = [entry for entry in entries if is_folder(entry) or entry.suffix.lower() in clips]
    if pictures and others:
        raise UserError(
            f"{folder}: holds pictures, as one clip does, and {others[0].name}, as a folder of "
            f"clips does; move {pictures[0].name} or {others[0].name} away"
        )
    return bool(pictures)
