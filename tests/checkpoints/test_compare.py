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
