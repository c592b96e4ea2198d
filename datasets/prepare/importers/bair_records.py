"""BAIR robot pushing as it is downloaded: TFRecord files, read without TensorFlow.

Assumed, as in softmotion30_44k/{train,test}/traj_*.tfrecords: each record is a tf.train.Example
whose features `0/image_aux1/encoded`, `1/image_aux1/encoded` ... hold one frame each as raw RGB
bytes, 64 x 64 x 3, of the camera that published work uses. Every length is checked by its
CRC-32C; of the contents that they have the form and the size expected, not their checksum, which
takes long in Python. A record of BAIR has 3 MB, and a file has 256 of them; larger ones than
MAX_RECORD are not read, nor more than MAX_RECORDS of a file.
"""

import os
import struct
from collections.abc import Iterator
from io import BufferedReader
from math import isqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.limits import LIMITS, Limits, check_pixels
from common.safe_paths import open_to_read, refuse_holes
from datasets.prepare.footage import Footage, Opened, Unreadable
from media.container import DEFAULT_FRAME_RATE, os_reason
from media.frames import Frame, Frames
from media.video import VideoError

SUFFIXES = (".tfrecords", ".tfrecord")
CAMERA = "image_aux1"
MAX_RECORD = 2**26  # bytes
MAX_RECORDS = 2**16  # of a file
MAX_FIELDS = 2**16  # of all messages of a record; BAIR has a thousand
_MAX_NAME = 60  # characters of the name of a feature that a message shows

_LENGTH = struct.Struct("<QI")  # bytes of the record, and their masked CRC-32C
_FOOTER = 4  # bytes: the CRC-32C of the record
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


class RecordClip(NamedTuple):
    """The frames in one record of a TFRecord file; it states no frame rate."""

    path: Path
    number: int
    offset: int
    num_bytes: int

    @property
    def source(self) -> str:
        return f"{self.path} record {self.number}"

    def open(self, limits: Limits = LIMITS) -> Opened:
        frames = read_record(self.path, self.offset, self.num_bytes, limits)
        return Opened(DEFAULT_FRAME_RATE, iter(frames))


def record_clips(path: Path, stem: str) -> Iterator[tuple[str, Footage]]:
    """Name and footage of each record of a file; names are `stem` and a number of five digits.

    Where the file is cut off or damaged, the last one is `Unreadable`.
    """
    number = 0
    try:
        for offset, num_bytes in find_records(path):
            yield f"{stem}_{number:05d}", RecordClip(path, number, offset, num_bytes)
            number += 1
    except VideoError as error:
        yield f"{stem}_{number:05d}", Unreadable(str(path), str(error))


def find_records(path: Path) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of each record of a file, without reading them.

    Raises:
        VideoError: after the last whole record, where the file is cut off or damaged; after
            MAX_RECORDS records.
    """
    position = num_records = 0
    with _open(path) as file:
        end = os.fstat(file.fileno()).st_size
        while position < end:
            file.seek(position)
            head = file.read(_LENGTH.size)
            if len(head) < _LENGTH.size or _LENGTH.unpack(head)[1] != _masked_crc(head[:8]):
                raise VideoError(f"{path}: no record at byte {position}; download the file again")
            num_bytes = _LENGTH.unpack(head)[0]
            begin = position + _LENGTH.size
            position = begin + num_bytes + _FOOTER
            if position > end:
                raise VideoError(f"{path}: ends within a record; download the file again")
            num_records += 1
            if num_records > MAX_RECORDS:
                raise VideoError(f"{path}: more than {MAX_RECORDS:,} records; the others are left")
            yield begin, num_bytes


def _open(path: Path) -> BufferedReader:
    try:
        file = open_to_read(path)
        try:
            refuse_holes(path, file)  # each record would be read, of which one may be all hole
        except UserError:
            file.close()
            raise
    except UserError as error:
        raise VideoError(str(error)) from None
    return file


def read_record(path: Path, offset: int, num_bytes: int, limits: Limits = LIMITS) -> Frames:
    """The frames of one record: uint8, N x H x W x 3.

    Raises:
        VideoError: it holds no frames of the layout above, or is larger than the limits allow.
    """
    place = f"{path} at byte {offset}"
    if num_bytes > MAX_RECORD:
        raise VideoError(
            f"{place}: a record of {num_bytes:,} bytes; at most {MAX_RECORD:,} are read"
        )
    try:
        with _open(path) as file:
            file.seek(offset)
            record = file.read(num_bytes)
    except OSError as error:
        raise VideoError(f"{path}: {os_reason(error)}") from None
    try:
        features = _Parser().example(record)
    except (IndexError, ValueError):
        raise VideoError(f"{place}: not a tf.train.Example") from None
    frames: list[Frame] = []
    while (pixels := features.get(f"{len(frames)}/{CAMERA}/encoded")) is not None:
        side = isqrt(len(pixels) // 3)
        if not side or side * side * 3 != len(pixels):
            raise VideoError(f"{place}: {len(pixels)} bytes are no square RGB frame")
        try:
            check_pixels(path, side, side, limits.frame, "a frame")
        except UserError as error:
            raise VideoError(str(error)) from None
        frames.append(np.frombuffer(pixels, np.uint8).reshape(side, side, 3))
    if not frames:
        names = (f"{name:.{_MAX_NAME}}" for name in sorted(features)[:3])
        listed = ", ".join(names) or "nothing"
        raise VideoError(f"{place}: no feature 0/{CAMERA}/encoded; it holds {listed}")
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(f"{place}: its frames differ in size")
    return np.stack(frames)


class _Parser:
    """Reads the messages of a record, up to MAX_FIELDS fields in all."""

    def __init__(self) -> None:
        self._num_fields = 0

    def example(self, data: bytes) -> dict[str, bytes]:
        """The features of an Example that hold bytes: the first value of each, by name.

        Example { features: 1 }, Features { map entries: 1 }, entry { key: 1, Feature: 2 },
        Feature { BytesList: 1 }, BytesList { values: 1 }.
        """
        found = {}
        for features in self._fields(data, 1):
            for entry in self._fields(features, 1):
                (name,) = self._fields(entry, 1)
                values = [
                    value
                    for feature in self._fields(entry, 2)
                    for strings in self._fields(feature, 1)
                    for value in self._fields(strings, 1)
                ]
                if values:
                    found[name.decode()] = values[0]
        return found

    def _fields(self, message: bytes, wanted: int) -> list[bytes]:
        """The values of field number `wanted` of a message, those that are strings or messages."""
        found = []
        position = 0
        while position < len(message):
            self._num_fields += 1
            if self._num_fields > MAX_FIELDS:
                raise ValueError("too many fields")
            tag, position = _varint(message, position)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == _VARINT:
                _, position = _varint(message, position)
                continue
            if wire_type == _BYTES:
                size, position = _varint(message, position)
            elif wire_type in (_FIXED64, _FIXED32):
                size = 8 if wire_type == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire_type}")
            if position + size > len(message):
                raise ValueError("a field ends behind its message")
            if number == wanted and wire_type == _BYTES:
                found.append(message[position : position + size])
            position += size
        return found


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, seven bits a byte, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")


def _masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord files store it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
