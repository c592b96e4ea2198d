"""Untrusted files with bad intentions."""

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import torch


class Malicious:
    """An object whose pickle writes the file `trace` when it is loaded without restrictions."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def write_pickled_code(path: Path, trace: Path) -> Path:
    """Write a plain pickle that runs code; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"weights": Malicious(trace)}))
    return path


def write_saved_code(path: Path, trace: Path) -> Path:
    """Write a file of torch.save whose pickle runs code; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": Malicious(trace)}, path)
    return path


def write_large_gif(path: Path, width: int, height: int) -> Path:
    """Write a GIF of 43 bytes that states any size and holds one pixel; returns `path`."""
    screen = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    dot = b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
    path.write_bytes(screen + dot + b"\x3b")
    return path


def write_large_png(path: Path, width: int, height: int) -> Path:
    """Write a PNG that states any size and ends after its header; returns `path`."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(b"\0" * 1000), b"IEND")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks)))
    return path


def add_text(path: Path, num_bytes: int) -> Path:
    """Add a compressed text of so many bytes to a PNG; returns `path`."""
    content = path.read_bytes()
    note = _chunk(b"zTXtnote\0\0" + zlib.compress(b"a" * num_bytes))
    path.write_bytes(content[:33] + note + content[33:])
    return path


def _chunk(content: bytes) -> bytes:
    length, checksum = len(content) - 4, zlib.crc32(content)
    return struct.pack(">I", length) + content + struct.pack(">I", checksum)


def write_tiled_tiff(path: Path, side: int) -> Path:
    """Write a TIFF of one pixel in a tile of `side` x `side`; returns `path`."""
    # Tags: size, 8 bits, no compression, black is 0, one sample; then size, place and number of
    # bytes of the tile.
    tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (277, 1)]
    tags += [(322, side), (323, side), (324, 8), (325, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    path.write_bytes(header + entries + b"\0" * 4)
    return path


def archive_records(path: Path) -> list[tuple[str, bytes]]:
    """The names and contents of the records of a zip archive, in their order."""
    with zipfile.ZipFile(path) as archive:
        return [(record.filename, archive.read(record)) for record in archive.infolist()]


def write_archive(path: Path, records: Iterable[tuple[str, bytes]]) -> Path:
    """Write a zip archive of these records, not compressed; returns `path`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records:
            archive.writestr(name, content)
    return path


def write_pickle(path: Path, content: bytes) -> Path:
    """Write an archive as torch does, but with this pickle in it; returns `path`.

    The other records are those of the archive that lies at `path`, or of an empty one.
    """
    if not path.exists():
        torch.save({}, path)
    records = archive_records(path)
    return write_archive(
        path,
        [(name, content if name.endswith("/data.pkl") else old) for name, old in records],
    )


def compress_archive(path: Path) -> Path:
    """Write a zip archive again with compression; returns `path`."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path
