"""A checkpoint equals itself, and differs from one in which a weight is changed by a bit."""

import pytest
import torch

from checkpoints import compare
from common.cli import run_entry_point
from tests.helpers.runs import contents, step_file


def run(*paths):
    return run_entry_point(compare.main, compare.build_parser(), [*map(str, paths)])


def test_one_bit_is_seen(tiny_run, tmp_path, capsys):
    path = step_file(tiny_run, 8)
    content = contents(path)
    content["training"]["seconds"] += 1
    torch.save(content, tmp_path / "same.pt")
    assert run(path, tmp_path / "same.pt") == 0
    assert capsys.readouterr().out == "the same to the last bit\n"
    name = "first.conv.bias"
    content["networks"]["generator"][name].view(torch.int32)[0] ^= 1
    torch.save(content, tmp_path / "other.pt")
    assert run(path, tmp_path / "other.pt") == 1
    assert capsys.readouterr().out == f"networks.generator.{name}\n1 differences\n"


@pytest.mark.parametrize("content", [{"generator": {}}, [1], torch.zeros(1).expand(2**40)])
def test_files_without_the_parts_that_are_compared(tmp_path, capsys, content):
    """Two of them are not the same for lack of what could differ."""
    path = tmp_path / "a.pt"
    torch.save(content, path)
    assert run(path, path) == 2
    assert f"{path}: not a checkpoint of this project" in capsys.readouterr().err


def test_other_names_of_tensors_are_differences(tiny_run, tmp_path, capsys):
    """Python would compare the tensors of both, and fail."""
    path, other = step_file(tiny_run, 8), tmp_path / "other.pt"
    content = contents(path)
    networks = content["networks"]
    networks["generator"]["other"] = networks["generator"].pop("first.conv.bias")
    content["training"]["log"]["means"]["sums"] = [(["a"], torch.zeros(2))]
    torch.save(content, other)
    assert run(path, other) == 1
    found = capsys.readouterr().out
    assert "networks.generator\n" in found
    assert "training.log.means.sums" in found
    assert run(other, other) == 0


def test_numbers_that_are_not_numbers_equal_themselves():
    one = {"a": torch.tensor([torch.nan, 1.0]), "b": torch.nan, "c": [(torch.zeros(2),)]}
    other = {"a": torch.tensor([torch.nan, 1.0]), "b": torch.nan, "c": [(torch.zeros(2),)]}
    assert compare.differences(one, other) == []
    assert compare.differences(one, one | {"a": torch.tensor([torch.nan, 2.0])}) == [".a"]
    assert compare.differences(torch.zeros(1), -torch.zeros(1), "zero") == ["zero"]
