"""Files as PyTorch 0.2 wrote them under Python 2, from tensors of today."""

import pickle
import struct
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
SYSTEM = {"protocol_version": PROTOCOL_VERSION, "little_endian": True, "type_sizes": {"int": 4}}
# Trained on a GPU, which the storages name.
STORAGES = {torch.float32: torch.cuda.FloatStorage, torch.int64: torch.cuda.LongStorage}


class Storage(NamedTuple):
    """What the content states of a storage: its name in the file, its class and its length."""

    name: str
    kind: type
    num_elements: int


class OldTensor(NamedTuple):
    """A tensor as the content states it, a view of a storage."""

    storage: Storage
    size: tuple[int, ...]
    stride: tuple[int, ...]


class OldPickler(pickle._Pickler):
    """Writes strings, ordered dicts and tensors as the pickles of that time have them.

    tensors: those written so far, in order; the storage of each has its number for a name.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, protocol=2)
        self.tensors: list[Tensor] = []

    def save_str(self, text):
        content = text.encode()
        self.write(pickle.SHORT_BINSTRING + bytes([len(content)]) + content)
        self.memoize(text)

    dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch, str: save_str}

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        return ("storage", obj.kind, obj.name, "cuda:0", obj.num_elements, None)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, OrderedDict):
            return OrderedDict, ([[name, value] for name, value in obj.items()],)
        if isinstance(obj, Tensor):
            storage = Storage(str(len(self.tensors)), STORAGES[obj.dtype], obj.numel())
            self.tensors.append(obj)
            obj = OldTensor(storage, tuple(obj.shape), obj.contiguous().stride())
        if isinstance(obj, OldTensor):
            return torch._utils._rebuild_tensor, (obj.storage, 0, obj.size, obj.stride)
        return NotImplemented


def write_old_file(path: Path, content: Any) -> Path:
    """Write `content`, plain containers and tensors; returns `path`."""
    with path.open("wb") as file:
        tensors = _write_pickles(file, content)
        OldPickler(file).dump([str(number) for number in range(len(tensors))])
        for tensor in tensors:
            file.write(storage_bytes(tensor.numel(), tensor.contiguous().numpy().tobytes()))
    return path


def write_stated(path: Path, content: Any, names: Sequence[Any], storages: bytes = b"") -> Path:
    """Write a content that states what it likes of its storages, and what the file holds."""
    with path.open("wb") as file:
        _write_pickles(file, content)
        OldPickler(file).dump(list(names))
        file.write(storages)
    return path


def storage_bytes(num_elements: int, content: bytes) -> bytes:
    """A storage in the file: the number of its elements, and these."""
    return struct.pack("<q", num_elements) + content


def _write_pickles(file: IO[bytes], content: Any) -> list[Tensor]:
    """Write all pickles up to the content; returns the tensors in it."""
    for part in (MAGIC_NUMBER, PROTOCOL_VERSION, SYSTEM):
        OldPickler(file).dump(part)
    pickler = OldPickler(file)
    pickler.dump(content)
    return pickler.tensors
