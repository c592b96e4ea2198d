"""Skips files that operating systems leave in folders, such as .DS_Store and Thumbs.db."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from common.safe_paths import is_folder

# Names in lower case, from archives of macOS, Windows Explorer, Synology, QNAP, and whole volumes.
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
    """Whether a file or folder of this name is hidden, as .DS_Store is, or made by a system."""
    return name.startswith(".") or name.lower() in _NAMES


def user_entries(folder: Path) -> list[Path]:
    """List the entries of `folder` without hidden ones and files of operating systems."""
    return [entry for entry in folder.iterdir() if not is_system_file(entry.name)]


def partition(
    entries: Iterable[Path], is_wanted: Callable[[Path], bool]
) -> tuple[list[Path], list[Path]]:
    """Split `entries` into those for which `is_wanted` is true and the others, both in order."""
    wanted: list[Path] = []
    others: list[Path] = []
    for entry in entries:
        (wanted if is_wanted(entry) else others).append(entry)
    return wanted, others


def without_empty_folders(entries: Iterable[Path]) -> tuple[list[Path], int]:
    """Remove empty folders from `entries`; return the rest, and how many were removed.

    A folder that holds only system files counts as empty.
    """
    kept, num_empty = [], 0
    for entry in entries:
        if is_folder(entry) and _is_empty(entry):
            num_empty += 1
        else:
            kept.append(entry)
    return kept, num_empty


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return all(is_system_file(entry.name) for entry in entries)
