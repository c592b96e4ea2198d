"""safetensors files: what is written is read, and a header that lies is refused before reading."""

import json
import os
import struct
import sys

import pytest
import torch

from checkpoints.content import read_content
from common import safe_paths
from common.errors import UserError
from common.safetensors_files import (
    MAX_HEADER,
    checksum,
    file_checksum,
    is_safetensors,
    read_safetensors,
    to_bytes,
)
from common.tensor_files import CheckpointError, read_tensors

pytest.importorskip("safetensors")

TENSORS = {
    "a.weight": torch.arange(6.0).view(2, 3),
    "a.half": torch.tensor([1.5, -2.0]).half(),
    "b.count": torch.tensor(7),
    "b.flag": torch.tensor([True, False]),
    "b.empty": torch.zeros(0, 4),
    "b.bf16": torch.tensor([0.5]).bfloat16(),
}


def equal(found, expected):
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in expected.items()
    )


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(to_bytes(TENSORS, {"text": '{"é": "\n"}'}))
    found = read_safetensors(path)
    assert equal(found.tensors, TENSORS)
    assert found.metadata == {"text": '{"é": "\n"}'}
    assert is_safetensors(path.read_bytes()[:9])
    assert equal(read_tensors(path), TENSORS)  # whoever reads tensors alone


def test_tensors_that_share_memory_or_are_views(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    tensors = {"a": whole, "b": whole, "c": whole.T, "d": whole[1:]}
    (tmp_path / "a").write_bytes(to_bytes(tensors, {}))
    assert equal(read_safetensors(tmp_path / "a").tensors, tensors)


def test_equal_content_gives_equal_bytes():
    first = to_bytes(TENSORS, {"text": "x"})
    assert to_bytes(dict(reversed(TENSORS.items())), {"text": "x"}) == first


def test_the_checksum_is_of_the_numbers(tmp_path):
    content = to_bytes(TENSORS, {"text": "x"})
    other = to_bytes(TENSORS, {"text": "another text"})
    assert checksum(content) == checksum(other)
    flipped = bytearray(content)
    flipped[-1] ^= 1
    assert checksum(bytes(flipped)) != checksum(content)
    (tmp_path / "a").write_bytes(flipped)
    assert file_checksum(tmp_path / "a") == checksum(bytes(flipped))


def test_other_files_are_not_taken_for_it():
    for head in (b"", b"{", b"PK\3\4\x14\0\0\0{", b"\x80\x02\x8a\nl\xfc\x9cF{", b"some text{abc"):
        assert not is_safetensors(head)


def test_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").write_bytes(to_bytes(TENSORS, {}))
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError) as caught:
        read_tensors(tmp_path / "a.safetensors")
    assert str(caught.value) == (
        f"{tmp_path / 'a.safetensors'}: needs safetensors; install with: pip install -r "
        "requirements.txt"
    )


def pack(header, data=b"", length=None):
    """A file with this header, which may lie, and these numbers."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD = {
    "short": (b"\1\0\0", "it has fewer than 8 bytes"),
    "long header": (pack(b"{}", length=MAX_HEADER + 1), "its header states 8,388,609 bytes; at"),
    "beyond": (pack(b"{}", length=3), "its header goes beyond its end"),
    "no json": (pack(b"{hello}"), "its header is not readable as JSON"),
    "deep": (pack(b'{"a":' * 50_000), "its header is not readable as JSON"),
    "not utf-8": (pack(b'{"\xff": 1}'), "its header is 'utf-8' codec"),
    "twice": (
        pack(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'),
        "a key is there twice",
    ),
    "twice within": (
        pack(b'{"a":{"dtype":"U8","shape":[0],"shape":[1],"data_offsets":[0,1]}}', b"x"),
        "a key is there twice",
    ),
    "texts": (pack({"__metadata__": {"a": 1}}), "its metadata are not texts"),
    "text": (pack({"__metadata__": "a"}), "its metadata are not texts"),
    "no entry": (pack({"a": 1}), "a: no dtype, shape and data_offsets"),
    "more": (pack({"a": entry(0, 4, [1]) | {"x": 1}}, bytes(4)), "a: no dtype, shape and data"),
    "kind": (pack({"a": entry(0, 4, [1], "F8_E4M3")}, bytes(4)), "a: numbers of a kind that is"),
    "list": (pack({"a": entry(0, 4, [1], ["F32"])}, bytes(4)), "a: numbers of a kind that is"),
    "negative": (pack({"a": entry(0, 4, [-1, -1])}, bytes(4)), "a: its shape is not a list"),
    "fraction": (pack({"a": entry(0, 4, [1.0])}, bytes(4)), "a: its shape is not a list"),
    "truth": (pack({"a": entry(0, 4, [True])}, bytes(4)), "a: its shape is not a list"),
    "axes": (
        pack({"a": entry(0, 4, [1] * 9)}, bytes(4)),
        "a: its shape is not a list of at",
    ),
    "place": (pack({"a": {**entry(0, 4, [1]), "data_offsets": [0]}}, bytes(4)), "a: its place is"),
    "backward": (pack({"a": entry(4, 0, [1])}, bytes(4)), "a: its place has another size"),
    "large": (pack({"a": entry(0, 4, [2**40])}, bytes(4)), "a: its place has another size"),
    "overflow": (pack({"a": entry(0, 4, [2**62, 2**62])}, bytes(4)), "a: its place has another"),
    "too large": (pack({"a": entry(0, 2**42, [2**40])}, bytes(4)), "its tensors take 4,398,046,"),
    "gap": (pack({"a": entry(4, 8, [1])}, bytes(8)), "its tensors overlap or leave a gap"),
    "overlap": (
        pack({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}, bytes(8)),
        "its tensors overlap or leave a gap",
    ),
    "rest": (pack({"a": entry(0, 4, [1])}, bytes(5)), "its tensors take 4 bytes, the file has 5"),
    "cut": (to_bytes(TENSORS, {})[:-3], "its tensors take"),
    "number": (pack(b'{"a": 1e999}'), "its header is not readable as JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_headers_that_lie_are_refused_before_anything_is_read(tmp_path, monkeypatch, name):
    content, expected = BAD[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    monkeypatch.setattr("safetensors.torch.load_file", None)  # would be called only after the check
    with pytest.raises(UserError) as caught:
        read_safetensors(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: not a whole safetensors file: ")
    assert expected in line
    assert len(line) < len(str(path)) + 400
    assert "\n" not in line


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_safetensors(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        read_safetensors(tmp_path)


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="the system does not tell holes")
def test_a_large_file_of_holes(tmp_path, monkeypatch):
    """It takes no room on the disk, but to compare its checksum would read all its zeros."""
    monkeypatch.setattr(safe_paths, "MAX_SPARSE", 2**20)
    path, num_bytes = tmp_path / "a.safetensors", 2**26
    entry = {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}
    header = json.dumps({"a": entry}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(file.tell() + num_bytes)
    with pytest.raises(UserError, match="of them are stored"):
        read_safetensors(path)
    with pytest.raises(CheckpointError, match="of them are stored"):
        read_content(path)
