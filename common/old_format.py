"""Checks files of tensors in the format that torch wrote before version 1.6.

Five pickles follow each other: a number, a version, the system, the content, and the names of the
storages. Then come the storages, each as the count of its elements and the elements. The content
states type and count for each storage that its tensors refer to, and torch makes room for what is
stated before it looks for it.
"""

import os
import pickle
import pickletools
import struct
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

HEAD: Final = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
NUM_PICKLES: Final = 5
_CONTENT: Final = 3  # pickles before it
_COUNT: Final = struct.Struct("<q")
_ITEMSIZES: Final = {  # bytes of an element, by the class of the storage
    **{"ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "ShortStorage": 2, "IntStorage": 4},
    **{"LongStorage": 8, "HalfStorage": 2, "BFloat16Storage": 2, "FloatStorage": 4},
    **{"DoubleStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16},
}


class _Storage(NamedTuple):
    """A storage as the content states it: bytes of an element, and the number of elements."""

    itemsize: int
    num_elements: int


def check_storages(path: Path) -> None:
    """Make sure that a file holds every storage that its content states, each once and whole.

    Its pickles must have been checked: they ask for nothing but tensors and plain containers.

    Raises:
        Exception: of any kind, where the file is damaged.
    """
    with path.open("rb") as file:
        for _ in range(_CONTENT):
            for _ in pickletools.genops(file):
                pass
        content = _StorageReader(file)
        content.load()
        names = _StorageReader(file).load()
        if sorted(names) != sorted(content.storages):
            raise ValueError("its storages are others than those of its tensors")
        begin = file.tell()
        end = file.seek(0, os.SEEK_END)
        for name in names:
            itemsize, num_elements = content.storages[name]
            file.seek(begin)
            if _COUNT.unpack(file.read(_COUNT.size)) != (num_elements,):
                raise ValueError(f"storage {name} has another size than its tensor's")
            begin += _COUNT.size + itemsize * num_elements
            if num_elements < 0 or begin > end:
                raise EOFError(f"storage {name} is cut off")


class _StandIn:
    """Instead of anything that a pickle would build; it keeps nothing of what it is given."""

    def __new__(cls, *_arguments: object) -> Self:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Called with the attributes of what would be built."""


class _StorageReader(pickle._Unpickler):  # in C the memo is an array, as long as a file likes
    """Reads a pickle and notes the storages that it refers to, by name; no tensor is built."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")  # as torch reads strings of Python 2
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if name.endswith("Storage"):  # a number: what is called by mistake makes nothing
            return _ITEMSIZES[name]
        return OrderedDict if name == "OrderedDict" else _StandIn

    def persistent_load(self, identity: Any) -> None:
        kind, itemsize, name, _location, num_elements, _view = identity
        if kind != "storage" or not isinstance(name, str) or type(num_elements) is not int:
            raise ValueError(f"{kind!r} is no storage")
        stated = _Storage(itemsize, num_elements)
        if self.storages.setdefault(name, stated) != stated:
            raise ValueError(f"storage {name} has two sizes")
