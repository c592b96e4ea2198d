"""benchmarks/trials.py: the tables of ratios, with and without real trials."""

from benchmarks import trials
from common.speed_trial import Shape
from tests.helpers.runs import call


def test_a_row_for_each_size(monkeypatch, capsys):
    monkeypatch.setattr(trials, "half_precision_ratio", lambda *_: 7.5)
    monkeypatch.setattr(trials, "layout_ratio", lambda _precision, _device, shape: shape.side / 64)
    assert call(trials) == 0
    first, _, *table = capsys.readouterr().out.splitlines()
    assert first == "bf16 to float32: 7.50"
    assert len(table) == 2 + len(trials.SHAPES)
    assert [cell.strip() for cell in table[3].split("|")[1:3]] == ["1 x 64 x 256²", "4.0000"]


def test_a_real_trial(monkeypatch, capsys):
    monkeypatch.setattr(trials, "SHAPES", [Shape(1, 8, 16)])
    assert call(trials) == 0
    ratio = float(capsys.readouterr().out.splitlines()[-1].split("|")[2])
    assert 0.05 < ratio < 20
