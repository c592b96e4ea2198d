"""Small pickles that would take any amount of time or memory are refused before they are built."""

import pickle
import struct
from collections import OrderedDict

import pytest
import torch

from common import pickled_content
from common.tensor_files import CheckpointError, read_facts, read_tensors
from tests.helpers.hostile import write_pickle
from tests.helpers.old_torch_files import MAGIC_NUMBER, PROTOCOL_VERSION, SYSTEM


def put(place):
    return pickle.BINPUT + bytes([place])


def get(place):
    return pickle.BINGET + bytes([place])


ONE = b"K\1"
# A tuple that holds a tuple twice, which does the same, and so on, 60 times.
TUPLES = ONE + b"".join(put(level) + get(level) + pickle.TUPLE2 for level in range(60))
ORDERED = b"ccollections\nOrderedDict\n"
PAIRS = b"](K\1K\2\x86K\3K\4\x86e"


STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\3tQ"


def tensor(size):
    """A tensor of a storage of three numbers with this size; its strides are of one dimension."""
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\0" + size + b"K\1\x85\x89}tR"


KEYS = "it has a dict whose keys are neither text nor numbers of 64 bits"
LARGE = "its content has more than 10,000,000 values and characters"
ITSELF = "it has a list or a dict that holds itself"
ATTRIBUTES = "a tensor or a state dict has attributes of other kinds than torch's"
REFUSED = {
    "a key that takes ages to hash": (b"}" + TUPLES + b"K\1s", KEYS),
    "many such keys": (b"}(" + TUPLES + b"K\1u", KEYS),
    "such a key of an ordered dict": (ORDERED + b"](" + TUPLES + b"N\x86e\x85R", KEYS),
    "a key that is a list": (b"}](K\1eK\1s", KEYS),
    "a key that is a tensor": (b"}" + tensor(b"K\3\x85") + b"K\1s", KEYS),
    "a key that is a fraction": (b"}G?\xf0\0\0\0\0\0\0Ns", KEYS),
    "a number of more than 64 bits": (b"}\x8a\x09" + bytes(8) + b"\x01Ns", KEYS),
    "numbers that may collide in a dict": (
        b"}("
        + b"".join(b"\x8a\x08" + struct.pack("<q", n << 40) + b"N" for n in range(5000))
        + b"u",
        "it has more than 4,096 keys above 1,000,000",
    ),
    "tuples of tuples": (TUPLES, LARGE),
    "lists of lists": (
        b"]" + put(0) + b"".join(b"](" + get(n) * 9 + b"e" + put(n + 1) for n in range(20)),
        LARGE,
    ),
    "dicts of dicts": (
        b"}"
        + put(0)
        + b"".join(
            b"}(" + b"".join(b"K" + bytes([key]) + get(n) for key in range(9)) + b"u" + put(n + 1)
            for n in range(20)
        ),
        LARGE,
    ),
    "a long text again and again": (
        b"]X" + (10**5).to_bytes(4, "little") + b"a" * 10**5 + put(0) + b"a(" + get(0) * 100 + b"e",
        LARGE,
    ),
    "a list that holds itself": (b"]" + put(0) + get(0) + b"a", ITSELF),
    "a dict that holds itself": (b"}" + put(0) + b"K\1](" + get(0) + b"es", ITSELF),
    "a list in a hundred others": (b"]" + b"\x85" * 101, LARGE),
    "many dicts of one list": (
        b"]("
        + ORDERED
        + put(0)
        + b"]("
        + PAIRS[2:-1] * 1000
        + b"e\x85"
        + put(1)
        + b"R"
        + (get(0) + get(1) + b"R") * 600
        + b"e",
        "it makes too many dicts of one list",
    ),
    "many dicts": (b"](" + b"}" * 2**19 + b"e", "it has more than 524,288 tensors, lists,"),
    "many dicts of nothing": (
        b"](" + ORDERED + put(0) + b")R" + (get(0) + b")R") * 2**19 + b"e",
        "it has more than 524,288 tensors, lists, tuples and dicts",
    ),
    "a tensor of very many dimensions": (
        tensor(b"(" + b"K\1" * 65 + b"t"),
        "a tensor has more than 64 dimensions",
    ),
    "a tensor whose size is a list": (tensor(b"](K\3e"), "a tensor has more than 64 dimensions"),
    "a tensor whose size is a tuple of tuples": (
        tensor(b"K\3\x85\x85"),
        "a tensor has a size that is no whole number",
    ),
    "a storage": (STORAGE + b"\x85", "it has a storage that is no tensor's"),
    "hooks": (tensor(b"K\3\x85").replace(b"}tR", b"}K\1K\1stR"), ATTRIBUTES),
    "hooks that are set later": (
        tensor(b"K\3\x85").replace(b"}tR", b"}" + put(0) + b"tR\x85" + put(1))
        + get(0)
        + b"K\1K\1s\x86",
        ATTRIBUTES,
    ),
    "a method in the way": (ORDERED + b")R}X\5\0\0\0itemsK\1sb", ATTRIBUTES),
    "attributes of a number": (
        b"K\1}X\5\0\0\0itemsK\1sb",
        "it sets attributes of something that is no state dict",
    ),
    "a version that is text": (
        ORDERED + b")R}X\x09\0\0\0_metadata}X\0\0\0\0}X\7\0\0\0versionX\1\0\0\x001sssb",
        ATTRIBUTES,
    ),
    "a quantized tensor": (
        b"ctorch._utils\n_rebuild_qtensor\n",
        "it has a tensor of a special kind (torch._utils._rebuild_qtensor)",
    ),
    "a set": (b"\x8f", "holds pickled code"),
    "an object": (b"ctorch\nSize\n)\x81", "holds pickled code"),
    "a name that is called": (b"X\1\0\0\0a)R", "holds pickled code"),
    "a layout": (b"ctorch.serialization\n_get_layout\n)R", "holds pickled code"),
    "a device that is a tuple": (b"ctorch\ndevice\n)\x85R", "it names a device by other than"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("is_old", [False, True])
def test_refused(tmp_path, monkeypatch, name, is_old):
    content, message = REFUSED[name]
    path = tmp_path / "a.pt"
    if b"FloatStorage" in content:
        torch.save({"a": torch.zeros(3)}, path)  # its record is there
    if is_old:
        first = (pickle.dumps(part, 2) for part in (MAGIC_NUMBER, PROTOCOL_VERSION, SYSTEM))
        path.write_bytes(b"".join(first) + b"\x80\2" + content + b"." + pickle.dumps(["0"], 2))
    else:
        write_pickle(path, b"\x80\2" + content + b".")
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert read_facts(path) == {}


def test_a_long_pickle(tmp_path, monkeypatch):
    """Two bytes make a list, which takes thirty times as many in memory."""
    monkeypatch.setattr(pickled_content, "MAX_BYTES", 1000)
    path = write_pickle(tmp_path / "a.pt", b"\x80\2]" + b"]a" * 500 + b".")
    with pytest.raises(CheckpointError, match="its pickle has more than 1,000 bytes"):
        read_tensors(path)
    assert read_tensors(write_pickle(path, b"\x80\2]" + b"]a" * 498 + b".")) == [[]] * 498


KINDS = {
    "sparse": torch.eye(3).to_sparse(),
    "weightless": torch.empty(3, 3, device="meta"),
    "of negated numbers": torch.ones(3, dtype=torch.complex64).conj().imag,
}


@pytest.mark.parametrize("kind", KINDS)
def test_special_tensors(tmp_path, kind):
    """Some of them take as much memory as they state."""
    path = tmp_path / "a.pt"
    torch.save({"a": KINDS[kind]}, path)
    with pytest.raises(CheckpointError, match=r"special kind|holds pickled code"):
        read_tensors(path)


def test_what_torch_writes_is_read(tmp_path):
    """Among it parameters, the metadata of a state dict, numbers as keys, and shared parts."""
    shared = ["a", 2**40, -1.5]
    norm = torch.nn.utils.spectral_norm(torch.nn.Conv2d(2, 2, 3))
    content = {
        "state": torch.nn.Sequential(torch.nn.BatchNorm2d(2), norm).state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "adam": {0: shared, 17: shared, True: None},
        "size": torch.ones(2, 3).size(),
        "dtype": torch.bfloat16,
        "device": torch.device("cuda:1"),
        "ordered": OrderedDict({"b": 1}),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    path = tmp_path / "a.pt"
    torch.save(content, path)
    found = read_tensors(path)
    assert found["adam"] == content["adam"]
    assert found["state"]._metadata == content["state"]._metadata
    assert torch.equal(found["parameter"], content["parameter"])
    for name in ("size", "dtype", "device", "ordered"):
        assert found[name] == content[name]
    assert read_facts(path).keys() == content.keys()
