"""Reads files of tensors: those that torch wrote, and safetensors files. No other code of this
project calls torch.load.

The file may be untrusted or damaged. No code in it is run, its checksums are compared, and a file
that would take more memory than it has bytes on disk is refused.
"""

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from common import old_format
from common.errors import UserError
from common.files import GIT_LFS_POINTER
from common.pickled_content import MAX_BYTES, Refused, read_pickle
from common.safe_paths import open_to_read, refuse_holes, require_plain_file
from common.safetensors_files import is_safetensors, read_safetensors

# First bytes of torch's files: a zip archive since version 1.6, a series of pickles before. A tar
# archive has its mark further on.
_ZIP, _OLD = b"PK", old_format.HEAD
_TAR, _TAR_MARK = b"ustar", 257

# Records at the end of a zip archive, the last two in large ones only: PKWARE's APPNOTE, 4.3.14-16.
_END: Final = struct.Struct("<4s4H2LH")
_LARGE_END: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_MAX_COMMENT: Final = 2**16  # bytes that may follow them
_MAX_UNUSED: Final = 2**20  # bytes of records that no tensor uses, such as torch's version


class CheckpointError(UserError):
    """A file is not a checkpoint, is damaged, or does not fit the config."""


def check_archive(path: Path) -> None:
    """Make sure that a zip archive takes no more memory than disk; torch compresses nothing.

    Raises:
        Refused: the archive takes more memory, or two readers may find different records in it.
        Exception: of any kind, if the file is not an archive.
    """
    place = _place_of_directory(path)  # before the package makes objects of what is listed there
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if place != (archive.start_dir, len(records)):
            raise Refused("its list of records is not where torch writes it")
        # torch goes by the names without regard to case, and takes the first of two.
        if len({record.filename.lower() for record in records}) < len(records) or any(
            record.filename != record.orig_filename for record in records
        ):
            raise Refused("its records have odd names, or two have the same")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise Refused("its records are compressed, as torch never writes them")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise Refused("its records are larger than the file")


def _place_of_directory(path: Path) -> tuple[int, int] | None:
    """Return where the list of records begins, and their number, as the end of the file states.

    None if the list does not end where that last part begins. Two readers of zip archives may find
    two different lists in such a file, and then one would check what the other does not load.

    Raises:
        Refused: something follows that last part, or the list is too long.
        Exception: of any kind, if the file is cut off.
    """
    with path.open("rb") as file:
        end = file.seek(-_END.size, os.SEEK_END)
        mark, *_, count, num_bytes, begin, comment = _END.unpack(file.read(_END.size))
        if mark != b"PK\5\6" or comment:  # `zipfile` would search for it further on
            file.seek(max(end - _MAX_COMMENT, 0))
            if b"PK\5\6" in file.read():
                raise Refused("its list of records is not where torch writes it")
            raise EOFError
        file.seek(max(end - _LOCATOR.size - _LARGE_END.size, 0))
        large = file.read(_LARGE_END.size)
        locator = file.read(_LOCATOR.size)
        if locator[:4] == b"PK\6\7":
            end -= _LOCATOR.size + _LARGE_END.size
            mark, *_, count, num_bytes, begin = _LARGE_END.unpack(large)
            if mark != b"PK\6\6" or _LOCATOR.unpack(locator)[2] != end:
                return None
    if num_bytes > MAX_BYTES:
        raise Refused(f"its list of records has more than {MAX_BYTES:,} bytes")
    return (begin, count) if begin + num_bytes == end else None


def check_content(path: Path) -> None:
    """Make sure that a file holds nothing but tensors and plain containers, and each tensor whole.

    torch's safe reader allows a little more, such as `bytearray`, with which a few bytes can take
    any amount of memory or time.

    Raises:
        pickle.UnpicklingError: the file names something else.
        Refused: its content is of a kind, or of a size, that is not read.
        Exception: of any kind, if the file is damaged.
    """
    with path.open("rb") as file:
        is_archive = file.read(len(_ZIP)) == _ZIP  # the head decides, as it does for torch
    if not is_archive:
        old_format.check_old_file(path)
        return
    with zipfile.ZipFile(path) as archive:
        folder = archive.namelist()[0].partition("/")[0]  # the first record decides for torch
        with archive.open(f"{folder}/data.pkl") as record:
            storages = read_pickle(record).storages
        for name, (itemsize, num_elements) in storages.items():
            num_bytes = archive.getinfo(f"{folder}/data/{name}").file_size
            if not 0 <= itemsize * num_elements <= num_bytes:
                raise EOFError(f"storage {name} is cut off")
        used = {
            f"{folder}/data/{name}": itemsize * num_elements
            for name, (itemsize, num_elements) in storages.items()
        }
        sizes = {r.filename: r.file_size for r in archive.infolist()}
        del sizes[f"{folder}/data.pkl"]
        # It would take long to compare checksums of such records, and torch loads the whole record
        # of a tensor.
        if sum(size - used.get(name, 0) for name, size in sizes.items()) > _MAX_UNUSED:
            raise Refused("more than a megabyte of it belongs to no tensor")


def check_sums(path: Path) -> None:
    """Compare the CRC-32 of every record; torch writes it, but does not check it.

    Raises:
        Exception: of any kind, if the file is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{name}: another CRC-32")


def read_facts(path: Path) -> Mapping[str, Any]:
    """Return the content of a checkpoint, to look at everything but its tensors.

    Where the file can be mapped to memory the tensors are not read. Empty if the file is damaged or
    not a checkpoint.
    """
    try:
        require_plain_file(path)
        check_archive(path)
        check_content(path)
        # Without `check_sums`, which would read all tensors.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # the old format, a file system without maps, or not a checkpoint
        try:
            content = read_tensors(path)
        except CheckpointError:
            return {}
    return content if isinstance(content, dict) else {}


def read_tensors(path: Path) -> Any:
    """Read tensors and plain containers to the CPU.

    No code is run. In files since torch 1.6 the checksums show that every byte is as written. Of a
    safetensors file the result is a dict of its tensors, without its texts.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or holds something else.
    """
    try:
        with open_to_read(path) as file:
            refuse_holes(path, file)
            head = file.read(_TAR_MARK + len(_TAR))
    except UserError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if head.startswith(GIT_LFS_POINTER):
        raise CheckpointError(f"{path}: a git-lfs pointer, not the file itself; run `git lfs pull`")
    if not head.startswith((_ZIP, _OLD)):  # torch would unpickle other files before its checks
        if is_safetensors(head):
            return _read_safetensors(path)
        if head[_TAR_MARK:] == _TAR:
            raise CheckpointError(
                f"{path}: a tar archive; unpack it, or, if one of PyTorch's first versions (0.1) "
                "wrote it as a checkpoint, save it anew with a later one"
            )
        raise CheckpointError(f"{path}: not a checkpoint")
    try:
        if head.startswith(_ZIP):
            check_archive(path)
        check_content(path)
        if head.startswith(_ZIP):
            check_sums(path)  # last, since it takes a second for each half a gigabyte
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Refused as error:
        raise CheckpointError(f"{path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds pickled code, which is not run; only tensors and plain containers are "
            "read"
        ) from error
    except Exception as error:  # a damaged file can raise anything in the reader
        raise CheckpointError(f"{path}: damaged or truncated; use an earlier checkpoint") from error


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return read_safetensors(path).tensors
    except UserError as error:
        raise CheckpointError(str(error)) from error
