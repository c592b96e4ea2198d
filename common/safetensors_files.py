"""Reads and writes safetensors files: tensors and text, without any pickle or code.

The format (github.com/huggingface/safetensors): the length of the header in 8 bytes, the header in
JSON, then the numbers of all tensors. The package safetensors reads it; before that the header is
checked here, since the file may be untrusted or damaged.
"""

import math
import os
import struct
import zlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor

from common.errors import UserError
from common.json_files import JsonError, parse_json
from common.safe_paths import open_to_read, refuse_holes

SUFFIX: Final = ".safetensors"
MAX_HEADER: Final = 2**23  # bytes; ours have some 200,000
MAX_AXES: Final = 8
_LIMIT: Final = 100_000_000  # bytes of a header, by the format itself
_LENGTH: Final = struct.Struct("<Q")
_METADATA: Final = "__metadata__"
# Bytes of a number, by the names of the format. It has further types, which no network here uses.
_ITEM_SIZES: Final = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1},
}
_CHUNK: Final = 2**20


class SafeFile(NamedTuple):
    """Content of a file.

    tensors: by name, on the CPU. Their numbers stay in the file until they are used.
    metadata: texts by name.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def require_package(purpose: str) -> Any:
    """Import the module safetensors.torch.

    Raises:
        UserError: it is not installed; the message begins with `purpose`.
    """
    try:
        return import_module("safetensors.torch")
    except ImportError as error:
        raise UserError(
            f"{purpose}: needs safetensors; install with: pip install -r requirements.txt"
        ) from error


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as a safetensors file does; `head` has its first 9 bytes or more."""
    if len(head) <= _LENGTH.size:
        return False
    (length,) = _LENGTH.unpack_from(head)
    return length <= _LIMIT and head[_LENGTH.size : _LENGTH.size + 1] == b"{"


def read_safetensors(path: Path) -> SafeFile:
    """Read a file.

    Raises:
        UserError: the package is not installed; the file cannot be read, is damaged, or states more
            than it holds.
    """
    package = require_package(str(path))
    try:
        metadata = _check_header(path)
        return SafeFile(package.load_file(path, device="cpu"), metadata)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _BadHeader as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from error
    except UserError:
        raise
    except Exception as error:  # the package finds more than was checked here
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a whole safetensors file: {reason:.200}") from error


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a file. Equal arguments give equal bytes if `metadata` has one entry: the
    package writes several in any order.

    Raises:
        UserError: the package is not installed.
    """
    package = require_package("a file of this kind")
    # Tensors of a state dict may share memory, which the format does not know.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return package.save(copies, dict(metadata))


def checksum(content: bytes) -> int:
    """CRC-32 of the numbers in the content of a file, which a change of its header leaves."""
    (length,) = _LENGTH.unpack_from(content)
    return zlib.crc32(memoryview(content)[_LENGTH.size + length :])


def file_checksum(path: Path) -> int:
    """The same of a file whose header was checked."""
    with path.open("rb") as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        file.seek(_LENGTH.size + length)
        found = 0
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found


class _BadHeader(ValueError):
    """The header is not one of a whole file; the message says why."""


def _check_header(path: Path) -> dict[str, str]:
    """Make sure that the header describes this file and no more than it holds; returns its texts.

    Raises:
        _BadHeader: it does not.
        UserError: it is not a plain file, or nearly all of it are holes.
        OSError: the file cannot be read.
    """
    with open_to_read(path) as file:
        refuse_holes(path, file)
        num_bytes = os.fstat(file.fileno()).st_size
        head = file.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise _BadHeader("it has fewer than 8 bytes")
        (length,) = _LENGTH.unpack(head)
        if length > MAX_HEADER:
            raise _BadHeader(f"its header states {length:,} bytes; at most {MAX_HEADER:,} are read")
        if length > num_bytes - _LENGTH.size:
            raise _BadHeader("its header goes beyond its end")
        text = file.read(length)
    try:
        header = parse_json(text.decode("utf-8"), unique_keys=True)
    except (UnicodeDecodeError, JsonError) as error:
        raise _BadHeader(f"its header is {error!s:.200}") from error
    if not isinstance(header, dict):
        raise _BadHeader("its header is not a mapping")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _BadHeader("its metadata are not texts")
    _check_places(header, num_bytes - _LENGTH.size - length)
    return metadata


def _check_places(header: dict[str, Any], num_bytes: int) -> None:
    """Make sure that the tensors fill `num_bytes` one after the other, each as its shape says."""
    places = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise _BadHeader(f"{name:.60}: no dtype, shape and data_offsets")
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in _ITEM_SIZES:
            raise _BadHeader(f"{name:.60}: numbers of a kind that is not read")
        shape, place = entry["shape"], entry["data_offsets"]
        if not _are_counts(shape) or len(shape) > MAX_AXES:
            raise _BadHeader(f"{name:.60}: its shape is not a list of at most {MAX_AXES} sizes")
        if not _are_counts(place) or len(place) != 2:
            raise _BadHeader(f"{name:.60}: its place is not a beginning and an end")
        if place[1] - place[0] != math.prod(shape) * _ITEM_SIZES[entry["dtype"]]:
            raise _BadHeader(f"{name:.60}: its place has another size than its shape")
        places.append(place)
    end = 0
    for begin, next_end in sorted(places):
        if begin != end:
            raise _BadHeader("its tensors overlap or leave a gap")
        end = next_end
    if end != num_bytes:
        raise _BadHeader(f"its tensors take {end:,} bytes, the file has {num_bytes:,} for them")


def _are_counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
