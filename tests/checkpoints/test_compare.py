"""A checkpoint equals itself, and differs from one in which a weight is changed by a bit."""

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
