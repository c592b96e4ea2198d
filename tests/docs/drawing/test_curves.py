"""The figures of a run: what is no log of a run is told in one line."""

import os

import pytest

from common.errors import UserError
from docs.drawing.curves import print_values, read_metrics

LINE = '{"step": 1, "kind": "train", "loss/total": 0.5'


@pytest.mark.parametrize("content", ["[1]", "7", "{", '{"step": 1}', "[" * 200_000, "\udcff"])
def test_what_is_no_log(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f"{LINE}}}\n{content}\n".encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"metrics\.jsonl: has no metrics of a run"):
        read_metrics(path)


def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="is not a plain file"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_the_name_of_a_scalar_cannot_control_the_terminal(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{LINE}, "\\u001b[2J": 1.0}}\n')
    print_values(read_metrics(path))
    assert r"| \x1b[2J | 1 | 1 | 1 |" in capsys.readouterr().out
