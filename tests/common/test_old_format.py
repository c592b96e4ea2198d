"""Files of torch before 1.6: read as they are, and refused where they state what they lack."""

import io
import pickle
import tarfile
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch.testing import assert_close

from common.tensor_files import CheckpointError, read_facts, read_tensors
from tests.helpers.old_torch_files import (
    OldTensor,
    Storage,
    storage_bytes,
    write_old_file,
    write_stated,
)

SIX = torch.arange(6.0).view(2, 3)
SIX_BYTES = storage_bytes(6, SIX.numpy().tobytes())


def stated(num_elements, kind=torch.FloatStorage):
    """Content with one tensor, whose storage has so many elements."""
    return {"weight": OldTensor(Storage("a", kind, num_elements), (num_elements,), (1,))}


def refusal(path):
    """The one line of the error."""
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert read_facts(path) == {}
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_file_of_python_2_and_a_gpu(tmp_path):
    content = {
        "state_dict": OrderedDict({"weight": SIX, "count": torch.tensor([7])}),
        "epoch": 3,
        "settings": ["text", None, 1.5, True, 2**40],
    }
    found = read_tensors(write_old_file(tmp_path / "a.pth", content))
    assert list(found["state_dict"]) == ["weight", "count"]
    assert torch.equal(found["state_dict"]["weight"], SIX)
    assert found["state_dict"]["count"].tolist() == [7]
    assert (found["epoch"], found["settings"]) == (3, content["settings"])


def test_views_of_one_storage(tmp_path):
    """As a file of torch itself has them, of several types."""
    whole = torch.arange(12.0)
    content = {"whole": whole, "part": whole[3:9].view(2, 3).T}
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8):
        content[str(dtype)] = SIX.to(dtype)
    content |= {"parameter": torch.nn.Parameter(SIX), "empty": torch.empty(0, 3)}
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=False)
    found = read_tensors(path)
    assert found.keys() == content.keys()
    for name, tensor in content.items():
        assert_close(found[name], tensor, atol=0, rtol=0)


BILLION = 10**9
LIES = {
    "more than there is memory": (stated(10**15), ["a"], SIX_BYTES),
    "four gigabytes that are not there": (stated(BILLION), [], b""),
    "four gigabytes in six numbers": (stated(BILLION), ["a"], SIX_BYTES),
    "four gigabytes cut off": (stated(BILLION), ["a"], storage_bytes(BILLION, b"abc")),
    "a storage of another name": (stated(6), ["b"], SIX_BYTES),
    "a storage twice": (stated(6), ["a", "a"], 2 * SIX_BYTES),
    "a storage too many": (stated(6), ["a", "b"], 2 * SIX_BYTES),
    "a storage of two sizes": ([stated(6), stated(5)], ["a"], SIX_BYTES),
    "a storage of two types": (
        [stated(6), stated(6, kind=torch.DoubleStorage)],
        ["a"],
        SIX_BYTES,
    ),
    "a negative size": (stated(-6), ["a"], storage_bytes(-6, b"")),
    "a size that is text": (stated("6"), ["a"], SIX_BYTES),
    "names that are numbers": (stated(6), [6], SIX_BYTES),
    "no storages": (stated(6), ["a"], b""),
    "a tensor beyond its storage": (
        {"weight": OldTensor(Storage("a", torch.FloatStorage, 6), (7,), (1,))},
        ["a"],
        SIX_BYTES,
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_more_than_the_file_holds(tmp_path, lie, monkeypatch):
    """Found before torch makes room, but for tensors beyond their storage."""
    if lie != "a tensor beyond its storage":
        monkeypatch.setattr(torch, "load", None)
    path = write_stated(tmp_path / "a.pth", *LIES[lie])
    assert refusal(path) == "damaged or truncated; use an earlier checkpoint"


def test_a_storage_that_is_called(tmp_path):
    """Storages are made of a number, that of their elements: none is made of a pickle's."""

    class Called:
        def __reduce__(self):
            return torch.FloatStorage, (10**12,)

    refusal(write_stated(tmp_path / "a.pth", {"a": Called()}, []))


def test_a_place_in_the_memo_that_is_far_away(tmp_path):
    """The C reader of pickles would make an array as long as that."""
    path = write_stated(tmp_path / "a.pth", "text", [])
    content = path.read_bytes()
    text = pickle.SHORT_BINSTRING + b"\4text"
    assert content.count(text) == 1
    far = text + pickle.LONG_BINPUT + b"\xff\xff\xff\xff"
    path.write_bytes(content.replace(text, far))
    assert read_tensors(path) == "text"


def test_an_archive_behind_an_old_file(tmp_path):
    """Torch goes by the head of a file; what is checked must be what it reads."""
    path, archive = tmp_path / "a.pth", tmp_path / "b.zip"
    torch.save({"a": bytearray(3)}, path, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("harmless", b"")
    path.write_bytes(path.read_bytes() + archive.read_bytes())
    assert refusal(path).startswith("holds pickled code")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
def test_truncated(tmp_path, share):
    path = write_old_file(tmp_path / "a.pth", {"weight": torch.rand(9, 9), "bias": torch.rand(9)})
    content = path.read_bytes()
    path.write_bytes(content[: max(int(share * len(content)), 20)])
    assert refusal(path) == "damaged or truncated; use an earlier checkpoint"


def test_any_byte_may_be_another(tmp_path):
    """Whatever a flipped byte makes of a file, it is read or it is one line."""
    path = write_old_file(tmp_path / "a.pth", {"weight": SIX, "names": ["b", 2]})
    content = path.read_bytes()
    messages = []
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x11]) + content[place + 1 :])
        try:
            read_tensors(path)
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) > len(content) // 3
    assert not any("\n" in message for message in messages)


def test_a_tar_archive(tmp_path):
    """As the first versions of PyTorch wrote them, and as people pack files."""
    path = tmp_path / "a.pth.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            record = tarfile.TarInfo(name)
            record.size = 3
            archive.addfile(record, io.BytesIO(b"abc"))
    assert refusal(path) == (
        "a tar archive; unpack it, or, if one of PyTorch's first versions (0.1) wrote it as a "
        "checkpoint, save it anew with a later one"
    )
