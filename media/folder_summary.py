"""Lines for the user on what is no fault of a file: what was done to it, what was left out."""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

# What lies beside frames and clips to describe them: nobody expects it to be read as one.
NOTES = (".json", ".txt", ".csv", ".md", ".npy", ".npz", ".yaml", ".yml", ".xml", ".log", ".ini")


def describe_entries(entries: Iterable[Path]) -> str:
    """`2 folders, 3 .jpg files`: what a folder holds instead of what was expected."""
    kinds = Counter(
        "folder" if entry.is_dir() else f"{entry.suffix or 'other'} file" for entry in entries
    )
    return ", ".join(counted(count, kind) for kind, count in sorted(kinds.items())) or "nothing"


def counted(count: int, kind: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count} {kind}" if count == 1 else f"{count} {kind}s"


def describe_left_out(entries: Iterable[Path], num_empty: int = 0) -> list[str]:
    """What of a folder is not used, in one line; none if that is nothing but notes.

    Args:
        num_empty: empty folders, beside `entries`.
    """
    unused = [entry for entry in entries if entry.suffix.lower() not in NOTES]
    kinds = [counted(num_empty, "empty folder")] if num_empty else []
    kinds += [describe_entries(unused)] if unused else []
    return [f"left out {', '.join(kinds)}"] if kinds else []


def log_left_out(folder: Path | str, entries: Iterable[Path], num_empty: int = 0) -> None:
    """Log `describe_left_out`."""
    for line in describe_left_out(entries, num_empty):
        logger.warning("%s: %s", folder, line)
