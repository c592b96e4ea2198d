"""Checks files of tensors in the format that torch wrote before version 1.6.

Five pickles follow each other: a number, a version, the system, the content, and the names of the
storages. Then come the storages, each as the count of its elements and the elements. The content
states type and count for each storage that its tensors refer to, and torch makes room for what is
stated before it looks for it.
"""

import os
import struct
from pathlib import Path
from typing import Final

from common.pickled_content import read_pickle

HEAD: Final = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_BEFORE_CONTENT: Final = 3  # pickles
_COUNT: Final = struct.Struct("<q")


def check_old_file(path: Path) -> None:
    """Check the pickles of a file, and that it holds every storage they state, each once and whole.

    Raises:
        pickle.UnpicklingError: they ask for other things than tensors and plain containers.
        Refused: their content is of a kind, or of a size, that is not read.
        Exception: of any kind, where the file is damaged.
    """
    with path.open("rb") as file:
        for _ in range(_BEFORE_CONTENT):
            read_pickle(file)
        storages = read_pickle(file).storages
        names = read_pickle(file).content
        if sorted(names) != sorted(storages):
            raise ValueError("its storages are others than those of its tensors")
        begin = file.tell()
        end = file.seek(0, os.SEEK_END)
        for name in names:
            itemsize, num_elements = storages[name]
            file.seek(begin)
            if _COUNT.unpack(file.read(_COUNT.size)) != (num_elements,):
                raise ValueError(f"storage {name} has another size than its tensor's")
            begin += _COUNT.size + itemsize * num_elements
            if num_elements < 0 or begin > end:
                raise EOFError(f"storage {name} is cut off")
