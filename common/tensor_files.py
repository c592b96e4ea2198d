"""Reads files of tensors that torch wrote. Nothing else calls torch.load.

Such a file may be a stranger's, or damaged. No code in it is run, its checksums are compared, and
what would take more memory than disk is refused.
"""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.files import GIT_LFS_POINTER

# How files of torch begin since version 1.6, and before.
_ZIP, _OLD = b"PK", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."


class CheckpointError(UserError):
    """A file that is no checkpoint, is damaged, or does not fit the config."""


class Inflated(ValueError):
    """A file that is larger in memory than on disk."""


def check_archive(path: Path) -> None:
    """Make sure that a zip archive takes no more memory than disk: torch compresses nothing.

    Raises:
        Inflated: it takes more.
        Exception: of any kind, where it is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise Inflated("its records are compressed, as torch never writes them")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise Inflated("its records are larger than the file")


def check_sums(path: Path) -> None:
    """Compare the CRC-32 of every record, which torch writes but does not look at.

    Raises:
        Exception: of any kind, where the file is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{name}: another CRC-32")


def read_facts(path: Path) -> Mapping[str, Any]:
    """What a checkpoint says of itself; of its tensors nothing is read where the file can be mapped
    to memory. Empty where it is no checkpoint, or damaged.
    """
    try:
        check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # the format of old, a file system without maps, or no checkpoint at all
        try:
            content = read_tensors(path)
        except CheckpointError:
            return {}
    return content if isinstance(content, dict) else {}


def read_tensors(path: Path) -> Any:
    """Unpickle tensors and plain containers only, to the CPU; every byte is as it was written."""
    try:
        with path.open("rb") as file:
            head = file.read(len(GIT_LFS_POINTER))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if head == GIT_LFS_POINTER:
        raise CheckpointError(f"{path}: a git-lfs pointer, not the file itself; run `git lfs pull`")
    try:
        if head.startswith(_ZIP):
            check_archive(path)
            check_sums(path)
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Inflated as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # what is no checkpoint breaks the reader in any number of ways
        if not head.startswith((_ZIP, _OLD)):
            raise CheckpointError(f"{path}: not a checkpoint") from error
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f"{path}: holds pickled code, which is not run; only tensors and plain containers "
                "are read"
            ) from error
        raise CheckpointError(f"{path}: damaged or truncated; use an earlier checkpoint") from error
