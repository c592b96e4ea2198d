"""The tables of docs/results.md, made from the reports of benchmarks."""

import json
from pathlib import Path

import pytest

from benchmarks.ablation_scores import METRICS
from benchmarks.results import TABLES, build_parser, differences_table, main, renew, seeds_table
from common.errors import UserError

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_agrees_with_the_measurements():
    page = (DOCS / "results.md").read_text()
    assert renew(page, DOCS / "results") == page, "run `make results`"
    for name in TABLES:
        assert f"<!-- table: {name} -->" in page


def report(mean):
    def summary(mean):
        return {"mean": mean, "seed_sd": 0.01, "low": mean - 0.1, "high": mean + 0.1}

    both = {name: summary(mean) for name in METRICS}
    rows = {
        "fomm": {"summary": both, "difference_to_fomm": {}},
        "unet": {
            "summary": {name: summary(mean + 0.2) for name in METRICS},
            "difference_to_fomm": {name: summary(0.2) for name in METRICS},
        },
    }
    return {"rows": rows, "baseline": {"summary": both}}


def cells(table, row):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {row} ")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_cells_by_hand():
    table = seeds_table(report(0.5))
    l1, psnr, ssim = cells(table, "FOMM")[:3]
    assert l1 == "0.5000 ±0.0100 [0.4000, 0.6000]"
    assert psnr == "0.50 ±0.01 [0.40, 0.60]"
    assert ssim == "0.500 ±0.010 [0.400, 0.600]"
    assert cells(table, "U-Net")[0].startswith("0.7000 ")
    assert cells(table, "repeat the source")[0].startswith("0.5000 ")
    differences = differences_table(report(0.5))
    assert cells(differences, "U-Net")[0] == "+0.2000 ±0.0100 [+0.1000, +0.3000]"
    assert "FOMM" not in differences


def test_a_stale_table_is_made_anew_and_the_text_stays(tmp_path, capsys):
    """In a copy of the page, with a changed report."""
    page = tmp_path / "results.md"
    old = "before\n<!-- table: ablation-puppets -->\n| stale |\n<!-- end -->\nafter\n"
    page.write_text(old)
    (tmp_path / "results").mkdir()
    changed = report(0.25)
    (tmp_path / "results" / "ablation_puppets.json").write_text(json.dumps(changed))
    arguments = build_parser().parse_args(["--page", str(page)])
    main(arguments)
    text = page.read_text()
    assert text.startswith("before\n<!-- table: ablation-puppets -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "0.2500" in text
    assert "stale" not in text
    assert "made anew" in capsys.readouterr().out
    main(arguments)
    assert page.read_text() == text
    assert "agree" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "{", "not JSON"])
def test_a_report_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "ablation_puppets.json").write_text(content)
    with pytest.raises(UserError, match=r"ablation_puppets\.json: cannot be read \(.*; restore it"):
        renew("<!-- table: ablation-puppets -->\n<!-- end -->", tmp_path)


def test_an_unknown_table(tmp_path):
    with pytest.raises(UserError, match="no table is called 'ablation'; there are ablation-heads"):
        renew("<!-- table: ablation -->\n<!-- end -->", tmp_path)
