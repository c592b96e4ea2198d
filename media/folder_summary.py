"""Tells the user what a folder holds, and which of its entries are not used."""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from common.safe_paths import is_folder

logger = logging.getLogger(__name__)

# Files that describe clips or frames and lie beside them: nobody expects them to be read as clips.
NOTES = (".json", ".txt", ".csv", ".md", ".npy", ".npz", ".yaml", ".yml", ".xml", ".log", ".ini")


def describe_entries(entries: Iterable[Path]) -> str:
    """Count entries by kind for a message: `2 folders, 3 .jpg files`."""
    kinds = Counter(
        "folder" if is_folder(entry) else f"{entry.suffix or 'other'} file" for entry in entries
    )
    return ", ".join(counted(count, kind) for kind, count in sorted(kinds.items())) or "nothing"


def counted(count: int, kind: str) -> str:
    """Put a number before a noun: `1 clip`, `2 clips`."""
    return f"{count} {kind}" if count == 1 else f"{count} {kind}s"


def describe_left_out(entries: Iterable[Path], num_empty: int = 0) -> list[str]:
    """Say in one line which entries of a folder are not used; no line if they are notes only.

    Args:
        num_empty: number of empty folders, which are not among `entries`.
    """
    unused = [entry for entry in entries if entry.suffix.lower() not in NOTES]
    kinds = [counted(num_empty, "empty folder")] if num_empty else []
    kinds += [describe_entries(unused)] if unused else []
    return [f"left out {', '.join(kinds)}"] if kinds else []


def log_left_out(folder: Path | str, entries: Iterable[Path], num_empty: int = 0) -> None:
    """Log a warning with the line of `describe_left_out`, if there is one."""
    for line in describe_left_out(entries, num_empty):
        logger.warning("%s: %s", folder, line)
