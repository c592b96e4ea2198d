"""Lines for the user on what is no fault of a file: what was done to it, what was left out."""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger("datasets.remarks")

# What lies beside frames and clips to describe them: nobody expects it to be read as one.
NOTES = (".json", ".txt", ".csv", ".md", ".npy", ".npz", ".yaml", ".yml", ".xml", ".log", ".ini")


def describe_entries(entries: Iterable[Path]) -> str:
    """`2 folders, 3 .jpg files`: what a folder holds instead of what was expected."""
    kinds = Counter(
        "folders" if entry.is_dir() else f"{entry.suffix or 'other'} files" for entry in entries
    )
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "nothing"


def remark_left_out(folder: Path | str, entries: Iterable[Path]) -> None:
    """Say what in `folder` is not used, in one line; nothing if that is nothing but notes."""
    left_out = [entry for entry in entries if entry.suffix.lower() not in NOTES]
    if left_out:
        logger.warning("%s: left out %s", folder, describe_entries(left_out))
