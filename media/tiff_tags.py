"""Adds up the bytes that the tags of a TIFF, or of Exif data, state, before Pillow reads them.

Each tag states a position in the file and a length, and Pillow copies these bytes for every tag. A
file of a megabyte with thousands of tags that share the same bytes would take gigabytes.
"""

import struct
from typing import BinaryIO, Final

_ORDERS: Final = {b"II": "<", b"MM": ">"}
# Bytes of a value by its type (TIFF 6.0, section 2; BigTIFF).
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_LARGE_SIZES: Final = {16: 8, 17: 8, 18: 8}
EXIF_HEAD: Final = b"Exif\0\0"


def stated_bytes(file: BinaryIO) -> int:
    """Return the number of bytes that the tags of the first directory state; 0 for other files.

    Args:
        file: a file that is a TIFF from its beginning on, at position 0.
    """
    try:
        order = _ORDERS[file.read(2)]
        (version,) = struct.unpack(f"{order}H", file.read(2))
        if version == 43:  # BigTIFF
            _, _, begin = struct.unpack(f"{order}HHQ", file.read(12))
            count, entry = "Q", "HHQQ"
        else:
            (begin,) = struct.unpack(f"{order}L", file.read(4))
            count, entry = "H", "HHLL"
        file.seek(begin)
        (num_tags,) = struct.unpack(f"{order}{count}", file.read(struct.calcsize(f"={count}")))
        length = struct.calcsize(f"={entry}")
        total = 0
        for _ in range(num_tags):
            _, kind, num_values, _ = struct.unpack(f"{order}{entry}", file.read(length))
            total += num_values * (_SIZES | _LARGE_SIZES).get(kind, 1)
        return total
    except (KeyError, struct.error):  # not a TIFF, or one that is cut off
        return 0
