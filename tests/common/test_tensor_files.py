"""Hostile tensor files, small on disk, that would take much memory or time, are refused."""

import pickle
import warnings
import zipfile

import pytest
import torch

from common.tensor_files import CheckpointError, read_facts, read_tensors
from tests.helpers.hostile import archive_records, write_archive, write_pickle


class Calls:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


GREEDY = {
    "bytearray": Calls(bytearray, 10**12),
    "codec": Calls(str.encode, "a", "punycode"),
    "tensor": Calls(torch.FloatTensor, 10**12),
    "set": {1, 2},
}


@pytest.mark.parametrize("name", GREEDY)
@pytest.mark.parametrize("is_old", [False, True])
def test_nothing_but_tensors_and_containers(tmp_path, name, is_old):
    path = tmp_path / "a.pt"
    if is_old:
        torch.save({"a": GREEDY[name]}, path, _use_new_zipfile_serialization=False)
    else:
        write_pickle(path, pickle.dumps({"a": GREEDY[name]}, protocol=2))
    with pytest.raises(CheckpointError, match="holds pickled code, which is not run"):
        read_tensors(path)
    assert read_facts(path) == {}


def test_an_archive_with_two_lists_of_records(tmp_path):
    """Two readers would find different lists, so one would check what the other does not load."""
    path, other = tmp_path / "a.pt", tmp_path / "b.zip"
    torch.save({"a": torch.ones(3)}, path)
    content = path.read_bytes()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("harmless", b"")
    harmless = other.read_bytes()
    begin, end = harmless.index(b"PK\1\2"), harmless.index(b"PK\5\6")
    large = content.rindex(b"PK\6\6")
    path.write_bytes(content[:large] + harmless[begin:end] + content[large:])
    with pytest.raises(CheckpointError):
        read_tensors(path)
    path.write_bytes(content)
    assert torch.equal(read_tensors(path)["a"], torch.ones(3))


def refused(path, message):
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert read_facts(path) == {}


@pytest.mark.parametrize("name", ["DATA.PKL", "data.pkl"])
def test_a_second_pickle_of_the_same_name(tmp_path, name):
    """torch finds records whatever their case, so it might load one that was not checked."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path)
    records = archive_records(path)
    hidden = (f"a/{name}", pickle.dumps(bytearray(3), protocol=2))
    with warnings.catch_warnings(action="ignore"):  # of two records of one name
        write_archive(path, [hidden, *records])
    refused(path, "its records have odd names, or two have the same")
    write_archive(path, [hidden, *(item for item in records if item[0] != "a/data.pkl")])
    refused(path, "damaged" if name == "DATA.PKL" else "holds pickled code")


def test_a_storage_that_is_larger_than_its_record(tmp_path, monkeypatch):
    """torch would have to notice that it reads beyond the record."""
    path, other = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"a": torch.ones(3)}, path)
    torch.save({"a": torch.ones(4)}, other)
    (content,) = (record for name, record in archive_records(other) if name == "b/data.pkl")
    write_pickle(path, content)
    monkeypatch.setattr(torch, "load", None)
    refused(path, "damaged or truncated")


@pytest.mark.parametrize("is_old", [False, True])
def test_the_content_of_checkpoints_is_read(tmp_path, is_old):
    content = {
        "a": torch.arange(3),
        "b": [1, 2.5, None, "text", True],
        "c": ({"d": torch.ones(2)},),
    }
    content["e"] = torch.nn.Linear(2, 2).state_dict()
    path = tmp_path / "a.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not is_old)
    found = read_tensors(path)
    assert found["b"] == content["b"]
    assert torch.equal(found["c"][0]["d"], torch.ones(2))
    assert found["e"].keys() == content["e"].keys()


def test_records_that_no_tensor_uses(tmp_path, monkeypatch):
    """To compare the checksum of such a record may take minutes, so it is refused before."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path)
    for num_bytes, is_refused in ((2**19, False), (2**21, True)):
        records = archive_records(path)
        name = f"{records[0][0].partition('/')[0]}/data/77"
        write_archive(tmp_path / "b.pt", [*records, (name, bytes(num_bytes))])
        if not is_refused:
            assert torch.equal(read_tensors(tmp_path / "b.pt")["a"], torch.ones(3))
            continue
        monkeypatch.setattr("common.tensor_files.check_sums", None)
        with pytest.raises(CheckpointError, match=r"b\.pt: more than a megabyte of it belongs"):
            read_tensors(tmp_path / "b.pt")


def test_a_record_that_is_larger_than_its_tensor(tmp_path, monkeypatch):
    """torch would load the whole record."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path)
    records = [
        (name, content + bytes(2**21 if name.endswith("/data/0") else 0))
        for name, content in archive_records(path)
    ]
    monkeypatch.setattr(torch, "load", None)
    refused(write_archive(tmp_path / "b.pt", records), "more than a megabyte of it belongs")


def test_a_long_list_of_records(tmp_path, monkeypatch):
    """The package takes sixteen times as much memory for it."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path)
    name = archive_records(path)[0][0].partition("/")[0]
    empty = [(f"{name}/{number}", b"") for number in range(200)]
    write_archive(path, [*archive_records(path), *empty])
    assert torch.equal(read_tensors(path)["a"], torch.ones(3))
    monkeypatch.setattr("common.tensor_files.MAX_BYTES", 10_000)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    refused(path, "its list of records has more than 10,000 bytes")


def test_bytes_behind_an_archive(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path)
    content = path.read_bytes()
    path.write_bytes(content + b"more")
    refused(path, "its list of records is not where torch writes it")
    path.write_bytes(content[:-2] + b"\4\0more")
    refused(path, "its list of records is not where torch writes it")


@pytest.mark.parametrize(
    "mark", [b"PK", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x08" + bytes(7)]
)
def test_a_file_of_holes(tmp_path, mark):
    """It would take all memory, or hours, and no room on the disk."""
    path = tmp_path / "a.pt"
    with path.open("wb") as file:
        file.write(mark)
        file.truncate(2**34)
    refused(path, "states 17,179,869,184 bytes, but only ")
