"""Small files in the layouts of data sets, and the command that imports them."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.cli import run_entry_point
from datasets.prepare import __main__ as prepare
from tests.helpers.media import numbered_frame


def run(source: Path, output: Path, *arguments: object) -> int:
    """Run `python -m datasets.prepare` with one worker unless --workers is given; returns the exit
    code.
    """
    argv = ["--input", source, "--output", output, "--image-size", "48x64", "--workers", 1]
    return run_entry_point(prepare.main, prepare.build_parser(), [*map(str, [*argv, *arguments])])


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def example(features: dict[str, bytes | float | int]) -> bytes:
    """A serialized tf.train.Example."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = field(1, field(1, value))
        elif isinstance(value, float):
            feature = field(2, field(1, struct.pack("<f", value)))
        else:
            feature = field(3, field(1, varint(value)))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def masked_crc(data: bytes) -> int:
    """The masked CRC-32C of a TFRecord file, computed with a table."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 * (byte & 1))
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    assert data != b"123456789" or crc == 0xE3069283, "the check value of the standard"
    return ((crc >> 15) + (crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def write_records(path: Path, records: Sequence[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b""
    for record in records:
        length = struct.pack("<Q", len(record))
        content += length + struct.pack("<I", masked_crc(length)) + record + b"\0\0\0\0"
    path.write_bytes(content)
    return path


def robot_record(first: int, num_frames: int = 3, side: int = 16) -> bytes:
    """A record of the robot data set: frames numbered from `first`, among other features."""
    features: dict[str, bytes | float | int] = {}
    for time in range(num_frames):
        features[f"{time}/image_main/encoded"] = bytes(side * side * 3)
        features[f"{time}/endeffector_pos"] = 0.5
        features[f"{time}/image_aux1/encoded"] = numbered_frame(
            first + time, (side, side)
        ).tobytes()
        features[f"{time}/step"] = 300
    return example(features)


def quadrants(size: tuple[int, int] = (96, 128)) -> NDArray[np.uint8]:
    """A picture, H x W x 3, with red, green, blue and white quarters, row by row."""
    colours = np.array([[(200, 0, 0), (0, 200, 0)], [(0, 0, 200), (200, 200, 200)]], np.uint8)
    return colours.repeat(size[0] // 2, axis=0).repeat(size[1] // 2, axis=1)
