"""What systems leave in folders beside people's files: no clip, no image, no frame."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

# Of macOS' archives, Windows Explorer, Synology and QNAP, and of volumes; in lower case.
_NAMES = {
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "@eadir",
    "@recycle",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}


def is_system_file(name: str) -> bool:
    """Whether an entry of this name is hidden, as .DS_Store and ._clip.mp4, or a system's own."""
    return name.startswith(".") or name.lower() in _NAMES


def user_entries(folder: Path) -> list[Path]:
    """The entries of `folder` that a person put there."""
    return [entry for entry in folder.iterdir() if not is_system_file(entry.name)]


def partition(
    entries: Iterable[Path], is_wanted: Callable[[Path], bool]
) -> tuple[list[Path], list[Path]]:
    """The wanted of `entries` and the others, both in order."""
    wanted: list[Path] = []
    others: list[Path] = []
    for entry in entries:
        (wanted if is_wanted(entry) else others).append(entry)
    return wanted, others


def without_empty_folders(entries: Iterable[Path]) -> tuple[list[Path], int]:
    """`entries` but for folders in which there is nothing; and how many those are."""
    kept, num_empty = [], 0
    for entry in entries:
        if entry.is_dir() and _is_empty(entry):
            num_empty += 1
        else:
            kept.append(entry)
    return kept, num_empty


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return all(is_system_file(entry.name) for entry in entries)
