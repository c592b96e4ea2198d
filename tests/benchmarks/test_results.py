"""The tables of docs/results.md, made from the reports of benchmarks."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ablation_rows import ROWS
from benchmarks.ablation_scores import METRICS
from benchmarks.results import (
    TABLES,
    build_parser,
    differences_table,
    evaluations_table,
    main,
    prioritycut_table,
    renew,
    row_name,
    seeds_table,
)
from common.errors import UserError

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_agrees_with_the_measurements():
    page = (DOCS / "results.md").read_text()
    assert renew(page, DOCS / "results") == page, "run `make results`"
    for name, (file, _) in TABLES.items():
        if (DOCS / "results" / file).exists():
            assert f"<!-- table: {name} -->" in page


def test_the_help_names_the_file_of_each_table():
    text = build_parser().format_help()
    for name, (file, _) in TABLES.items():
        assert f"{file} " in text
        assert re.search(rf"[ ,]{name}[,\n]", text), name


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
    lines = [line.split("|") for line in table.splitlines()]
    (line,) = [line for line in lines if len(line) > 1 and line[1].strip() == row]
    return [cell.strip() for cell in line[2:-1]]


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


def test_every_row_of_an_ablation_has_a_name():
    names = [row_name(row) for row in ROWS]
    assert len(set(names)) == len(names)
    assert row_name("fomm-prior-skip") == "+ prior, skip connection"


def test_tables_of_the_start_of_motion(tmp_path):
    measured = report(0.5)
    measured["rows"]["fomm-all"] = measured["rows"].pop("unet")
    (tmp_path / "ablation_motion_start.json").write_text(json.dumps(measured))
    blocks = "<!-- table: {} -->\n<!-- end -->\n"
    means = renew(blocks.format("motion-start"), tmp_path)
    assert cells(means, "+ all three")[0] == "0.7000 ±0.0100 [0.6000, 0.8000]"
    differences = renew(blocks.format("motion-start-differences"), tmp_path)
    assert cells(differences, "+ all three")[0] == "+0.2000 ±0.0100 [+0.1000, +0.3000]"


def test_the_table_of_joints(tmp_path):
    """The file holds a list, one report for each column."""
    reports = [
        {
            "name": name,
            "joints": {"head": {"movement": 5.0, "error": 5 * ratio, "ratio": ratio}},
            "mean_ratios": {"trunk": ratio, "arms": 0.75, "legs": 1.0},
        }
        for name, ratio in (("FOMM", 0.5), ("FOMM with all", 0.25))
    ]
    (tmp_path / "joints.json").write_text(json.dumps(reports))
    page = renew("<!-- table: joints -->\n<!-- end -->\n", tmp_path)
    assert cells(page, "joint") == ["movement", "FOMM", "FOMM with all"]
    assert cells(page, "head") == ["5.00", "0.50", "0.25"]
    assert cells(page, "mean of trunk") == ["", "0.50", "0.25"]
    assert cells(page, "mean of legs") == ["", "1.00", "1.00"]


def test_the_demo_beside_its_baselines(tmp_path):
    summary = {"l1": 0.03, "baseline_l1": 0.06, "l1_ratio": 0.5}
    summary |= {"figure_l1": 0.09, "baseline_figure_l1": 0.18, "figure_l1_ratio": 0.5}
    summary |= {"psnr": 22.5, "baseline_psnr": 20.0, "ssim": 0.7, "baseline_ssim": 0.4}
    summary |= {"mask_iou": 0.8, "mask_iou_all_white": 0.25, "steps": 600}
    names = ("swap_gain_db", "swap_figure_gain_db", "another_swap_gain_db")
    summary |= dict.fromkeys((*names, "another_swap_figure_gain_db"), 9.96)
    (tmp_path / "demo.json").write_text(json.dumps(summary))
    page = renew("<!-- table: demo -->\n<!-- end -->\n", tmp_path)
    assert cells(page, "L1") == ["0.0300", "0.0600", "0.50"]
    assert cells(page, "PSNR") == ["22.50", "20.00", ""]
    assert cells(page, "SSIM") == ["0.700", "0.400", ""]
    assert cells(page, "IoU of the masks (all white: 0.25)") == ["0.80", "", ""]
    assert cells(page, "swap: gain of the figure") == ["10.0 dB", "", ""]
    assert cells(page, "swap, driven by another: gain") == ["10.0 dB", "", ""]
    assert cells(page, "steps") == ["600", "", ""]
    (tmp_path / "demo.json").write_text(json.dumps(summary | {"figure_l1": None}))
    with pytest.raises(UserError, match="the table demo cannot be made of it"):
        renew("<!-- table: demo -->\n<!-- end -->\n", tmp_path)


def test_prioritycut_beside_each_other_row():
    """Paired by clip, over the seeds that both rows have."""
    scores = {"0": {"l1": [0.1, 0.3]}, "1": {"l1": [0.3, 0.5]}}
    worse = {"1": {"l1": [0.4, 0.7]}, "2": {"l1": [9.0, 9.0]}}
    other = {"0": {"l1": [0.1, 0.1]}, "1": {"l1": [0.1, 0.1]}}
    rows = {"fomm": worse, "prioritycut": scores, "unet": other}
    table = prioritycut_table({"rows": {row: {"scores": found} for row, found in rows.items()}})
    assert "| PriorityCut " not in table
    half = 12.7062 * 0.05  # two clips: t for 1 degree of freedom, sd / sqrt(2)
    assert cells(table, "FOMM") == [f"-0.1500 [{-0.15 - half:+.4f}, {-0.15 + half:+.4f}]"]
    half = 12.7062 * 0.1
    interval = f"[{0.2 - half:+.4f}, {0.2 + half:+.4f}]"
    assert cells(table, "U-Net") == [f"+0.2000 ±0.1414 {interval}"]


def test_evaluations_of_few_clips():
    def entry(mean, **clips):
        return {"mean": mean, "low": None, "high": None, "clips": clips}

    fomm = {"l1": entry(0.05, a=0.04, b=0.06), "akd": entry(1.5, a=1.5, b=None)}
    repeated = {"l1": entry(0.08, a=0.07, b=0.09), "akd": entry(None, a=None, b=None)}
    table = evaluations_table({"rows": {"FOMM": fomm, "repeat source": repeated}, "notes": []})
    assert cells(table, "") == ["FOMM", "repeat source"]
    assert cells(table, "L1 ↓") == ["0.0500 (0.0400, 0.0600)", "0.0800 (0.0700, 0.0900)"]
    assert cells(table, "AKD ↓") == ["1.500 (1.500, -)", "- (-, -)"]


def test_metrics_of_earlier_reports_are_enough():
    """Hidden pixels are a column where all rows have them."""
    whole = report(0.25)
    assert "hidden PSNR" in seeds_table(whole)
    del whole["rows"]["unet"]["summary"]["hidden_psnr"]
    assert "hidden PSNR" not in seeds_table(whole)
    assert "hidden L1" in seeds_table(whole)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("puppets-masks", {"animation": []}, "KeyError: 'threshold'"),
        ("puppets-animation", [], "TypeError: list indices"),
        ("joints", [], "IndexError: list index"),
        ("motion-start", {"rows": {"new": {"summary": {}}}}, "KeyError: 'baseline'"),
    ],
)
def test_a_report_without_what_the_table_shows(tmp_path, name, content, found):
    file, _ = TABLES[name]
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        renew(f"<!-- table: {name} -->\n<!-- end -->", tmp_path)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / file}: the table {name} cannot be made of it ({found}")
    assert "write it anew by the command that" in message


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


@pytest.mark.parametrize(
    "report",
    [
        {"rows": []},
        {"rows": {"fomm": {"scores": []}}},
        {"rows": {"fomm": {"scores": {"0": {"l1": []}}}}, "baseline": {"scores": {"l1": []}}},
    ],
)
def test_a_report_of_another_kind_is_one_line(tmp_path, report):
    (tmp_path / "ablation_heads.json").write_text(json.dumps(report))
    page = "<!-- table: ablation-heads -->\n<!-- end -->\n"
    with pytest.raises(UserError, match="the table ablation-heads cannot be made of it"):
        renew(page, tmp_path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_page_that_cannot_be_read_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "page.md").write_bytes(content)
    with pytest.raises(UserError, match=r"--page .*page.md: cannot be read"):
        main(build_parser().parse_args(["--page", str(tmp_path / "page.md")]))


@pytest.mark.parametrize(
    "rest", ["", "mine\n", "mine\n<!-- table: ablation-heads -->\n<!-- end -->\nafter\n"]
)
def test_a_table_without_an_end_takes_no_text_with_it(tmp_path, rest):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "ablation_puppets.json").write_text(json.dumps(report(0.25)))
    page = tmp_path / "results.md"
    page.write_text(text := f"before\n<!-- table: ablation-puppets -->\n{rest}")
    with pytest.raises(UserError, match="the table 'ablation-puppets' has no line <!-- end -->"):
        main(build_parser().parse_args(["--page", str(page)]))
    assert page.read_text() == text


def test_a_page_of_many_tables_without_an_end_takes_no_hours(tmp_path):
    with pytest.raises(UserError, match="has no line <!-- end -->"):
        renew("<!-- table: late -->\n" * 500_000, tmp_path)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_page_keeps_its_bytes(tmp_path, line_end):
    """Also where the system's own encoding is another one, and with line ends of Windows."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "ablation_puppets.json").write_text(json.dumps(report(0.25)))
    page, lines = tmp_path / "results.md", ["è → ü", "<!-- table: ablation-puppets -->", "<!-- end"]
    page.write_bytes(f"{line_end.join(lines)} -->".encode())
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "benchmarks.results", "--page", str(page)]
    ended = subprocess.run(
        command, env=environment, cwd=DOCS.parent, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    text = page.read_bytes().decode()
    assert text.startswith(line_end.join(lines[:2]))
    assert "0.2500 ±0.0100" in text
    assert text.count("\n") == text.count(line_end)
