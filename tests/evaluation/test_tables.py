"""Tables of several evaluations: numbers, marks and notes by hand, in Markdown and LaTeX."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from common.cli import run_entry_point
from evaluation import tables
from evaluation.evaluations import read_evaluation
from evaluation.frechet_results import FrechetResult, as_json
from evaluation.report import MeasuredClip, summarize, write_report
from evaluation.tables import build_table, json_text, latex, markdown
from tests.helpers.runs import error_line

DLIB = {"name": "dlib", "weights": "dlib 20", "convention": "68 landmarks", "licence": "none"}
I3D = {"name": "TorchScript", "weights": "sha256 ab", "convention": "16 frames", "licence": "own"}
# Three clips of two frames; the numbers of one evaluation are moved by `shift`.
L1 = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])


def write_run(folder, shift=0.0, *, fvd=None, tools=None, akd=None, baseline=0.3):
    """Write an evaluation with L1, PSNR (which falls as L1 rises), and, if given, AKD and FVD."""
    clips = []
    for index, name in enumerate("abc"):
        metrics = {"l1": L1[index] + shift, "psnr": 20 - 10 * (L1[index] + shift)}
        if akd is not None:
            metrics["akd"] = np.array(akd[index])
        metrics |= {f"baseline_{m}": np.full(2, baseline) for m in metrics}
        clips.append(MeasuredClip(name, 2, metrics))
    results = {}
    if fvd is not None:
        results = {"fvd": FrechetResult(fvd, 99.0, "i3d.pt", "ab", 16, 6, 3, 400)}
    about = {
        "checkpoint": "c.pt",
        "step": 8,
        "age": "step 8",
        "animator": "motion",
        "image_size": [48, 64],
        "measured_with": tools or {},
        "frechet": as_json(results),
    }
    folder.mkdir(exist_ok=True)
    write_report(folder, about, summarize(clips), clips)
    return folder


def table_of(*folders, names=None, **options):
    runs = [read_evaluation(folder) for folder in folders]
    return build_table(runs, names or [folder.name for folder in folders], **options)


def cells_of(text):
    """The rows of a Markdown table, by name."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in lines[2:]}


def test_by_hand(tmp_path):
    """Clip means 0.15, 0.35, 0.55: 0.35 +- 4.302653 * 0.2 / sqrt(3) = 0.4968."""
    runs = [
        write_run(tmp_path / name, shift) for name, shift in (("a", 0.02), ("b", 0.0), ("c", 0.01))
    ]
    text = markdown(table_of(*runs))
    assert text.splitlines()[:2] == ["|  | L1 ↓ | PSNR ↑ |", "| --- | ---: | ---: |"]
    assert cells_of(text) == {
        "a": ["0.3700 ± 0.4968", "16.30 ± 4.97"],
        "b": ["**0.3500** ± 0.4968", "**16.50** ± 4.97"],
        "c": ["<ins>0.3600</ins> ± 0.4968", "<ins>16.40</ins> ± 4.97"],
    }
    assert "Means over 3 clips (6 frames of 64 x 48 pixels)" in text


def test_equal_numbers_share_a_rank(tmp_path):
    """Ranks go by the printed digits."""
    shifts = {"a": 0.0, "b": 0.00001, "c": 0.01}
    runs = [write_run(tmp_path / name, shift) for name, shift in shifts.items()]
    cells = [row[0].split()[0] for row in cells_of(markdown(table_of(*runs))).values()]
    assert cells == ["**0.3500**", "**0.3500**", "<ins>0.3600</ins>"]


def test_a_single_result_is_not_ranked(tmp_path):
    text = markdown(table_of(write_run(tmp_path / "a")))
    assert cells_of(text) == {"a": ["0.3500 ± 0.4968", "16.50 ± 4.97"]}


def test_chosen_metrics_and_those_that_one_lacks(tmp_path):
    a = write_run(tmp_path / "a", fvd=250.0, tools={"fvd": I3D})
    b = write_run(tmp_path / "b", 0.1)
    text = markdown(table_of(a, b, metrics=["fvd", "l1"]))
    assert text.splitlines()[0] == "|  | FVD ↓ | L1 ↓ |"
    assert {name: row[0] for name, row in cells_of(text).items()} == {"a": "**250.00**", "b": "-"}
    assert "- fvd: TorchScript; sha256 ab; 16 frames" in text


def test_the_baseline_is_not_ranked(tmp_path):
    a = write_run(tmp_path / "a", fvd=250.0, tools={"fvd": I3D})
    b = write_run(tmp_path / "b", 0.1, fvd=200.0, tools={"fvd": I3D})
    rows = cells_of(markdown(table_of(a, b, with_baseline=True)))
    assert list(rows) == ["a", "b", "repeat source"]
    assert rows["repeat source"] == ["0.3000 ± 0.0000", "0.30 ± 0.00", "99.00"]
    assert [rows[name][2] for name in "ab"] == ["<ins>250.00</ins>", "**200.00**"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights": "dlib 19"}, "a with dlib (dlib 20); b with dlib (dlib 19)"),
        ({"convention": "5 landmarks"}, "a with 68 landmarks; b with 5 landmarks"),
        (None, "a with dlib (dlib 20); b with an unknown tool"),
    ],
)
def test_other_tools_are_told_and_not_ranked(tmp_path, change, told):
    akd = [[1.0, 2.0]] * 3
    a = write_run(tmp_path / "a", akd=akd, tools={"detector": DLIB})
    other = {} if change is None else {"detector": DLIB | change}
    b = write_run(tmp_path / "b", 0.1, akd=akd, tools=other)
    table = table_of(a, b)
    assert not any(note.startswith("detector:") for note in table.notes)
    assert f"akd: measured in different ways, and not ranked: {told}" in table.notes
    rows = cells_of(markdown(table))
    assert [row[2] for row in rows.values()] == ["1.500 ± 0.000"] * 2
    assert rows["a"][0].startswith("**")  # L1 needs no tool
    same = table_of(a, a, names=["a", "b"])
    assert [note for note in same.notes if "different" in note] == []
    assert "detector: dlib; dlib 20; 68 landmarks" in same.notes


def test_frames_that_are_left_out_are_told_if_they_differ(tmp_path):
    tools, akd = {"detector": DLIB}, [[1.0, 2.0]] * 3
    a = write_run(tmp_path / "a", akd=akd, tools=tools)
    b = write_run(tmp_path / "b", akd=[[1.0, np.nan], [np.nan, 2.0], [1.0, 2.0]], tools=tools)
    told = "akd: frames where it is not defined are left out: 0 of a, 2 of b"
    assert told in table_of(a, b).notes
    assert not [note for note in table_of(b, b, names=["b", "c"]).notes if "left out" in note]


def test_json(tmp_path):
    """Unrounded numbers, those of each clip, and null where a metric is not defined."""
    akd = [[1.0, 2.0], [3.0, np.nan], [np.nan, np.nan]]
    folders = write_run(tmp_path / "a", akd=akd), write_run(tmp_path / "b", 0.05, fvd=120.5)
    runs = [read_evaluation(folder) for folder in folders]
    found = json.loads(json_text(build_table(runs, ["A", "B"], with_baseline=True), runs))
    assert list(found["rows"]) == ["A", "B", "repeat source"]
    l1 = found["rows"]["B"]["l1"]
    assert l1["mean"] == pytest.approx(0.4)
    assert l1["clips"] == pytest.approx({"a": 0.2, "b": 0.4, "c": 0.6})
    half = 4.302653 * 0.2 / 3**0.5  # the t quantile for two degrees of freedom
    assert (l1["low"], l1["high"]) == pytest.approx((0.4 - half, 0.4 + half))
    assert found["rows"]["A"]["akd"]["mean"] == pytest.approx(2.25)
    assert found["rows"]["A"]["akd"]["clips"] == {"a": 1.5, "b": 3.0, "c": None}
    assert found["rows"]["B"]["akd"] == {"mean": None, "low": None, "high": None, "clips": {}}
    assert found["rows"]["B"]["fvd"] == {"mean": 120.5, "low": None, "high": None, "clips": {}}
    assert found["rows"]["repeat source"]["fvd"]["mean"] == 99.0
    assert found["rows"]["repeat source"]["l1"]["clips"] == dict.fromkeys("abc", 0.3)


def test_latex(tmp_path):
    a = write_run(tmp_path / "a", fvd=250.0, tools={"fvd": I3D})
    b = write_run(tmp_path / "b", 0.1, fvd=200.0, tools={"fvd": I3D})
    text = latex(table_of(a, b, names=["FOMM_256 & 50%", "a\\b{}~^#$"]))
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body == [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r" & L1 $\downarrow$ & PSNR $\uparrow$ & FVD $\downarrow$ \\",
        r"\midrule",
        r"FOMM\_256 \& 50\% & \textbf{0.3500} {\scriptsize$\pm$ 0.4968} & "
        r"\textbf{16.50} {\scriptsize$\pm$ 4.97} & \underline{250.00} \\",
        r"a\textbackslash{}b\{\}\textasciitilde{}\textasciicircum{}\#\$ & "
        r"\underline{0.4500} {\scriptsize$\pm$ 0.4968} & "
        r"\underline{15.50} {\scriptsize$\pm$ 4.97} & \textbf{200.00} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert text.startswith("% \\usepackage{booktabs}\n% Means over 3 clips")


def test_latex_compiles(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("no LaTeX here")
    text = latex(table_of(write_run(tmp_path / "a"), write_run(tmp_path / "b", 0.1)))
    (tmp_path / "t.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{text}\n"
        "\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


def test_names_cannot_break_the_table(tmp_path):
    names = ["a|b*c*_d_<b>[x](y)", "\x1b[2J\nrow"]
    runs = [write_run(tmp_path / name, shift) for name, shift in (("a", 0.0), ("b", 0.1))]
    text = markdown(table_of(*runs, names=names))
    assert "\x1b" not in text
    (row,) = [line for line in text.splitlines() if line.startswith(r"| a\|b")]
    assert row.startswith(r"| a\|b\*c\*\_d\_\<b\>\[x\](y) | **0.3500**")
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 4
    assert "\x1b" not in latex(table_of(*runs, names=names))


# As a command


def call(*arguments):
    return run_entry_point(tables.main, tables.build_parser(), [*map(str, arguments)])


def test_command(tmp_path, capsys):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", 0.1)
    assert call(a, b, "--names", "FOMM", "Ours", "--metrics", "psnr,l1") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("|  | PSNR ↑ | L1 ↓ |\n")
    assert "| Ours | <ins>15.50</ins>" in printed
    assert r"Ours & \underline{15.50}" in printed
    for name, other in (("markdown", "tabular"), ("latex", "| --- |")):
        assert call(a, b, "--format", name) == 0
        assert other not in capsys.readouterr().out
    assert call(a, b, "--format", "json", "--metrics", "l1") == 0
    assert list(json.loads(capsys.readouterr().out)["rows"]["b"]) == ["l1"]


def test_rows_are_named_by_folders(tmp_path, capsys, monkeypatch):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name / "test", 0.1)
    write_run(tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    assert call("../x/test", "../y/test", ".", "--format", "markdown") == 0
    assert list(cells_of(capsys.readouterr().out)) == ["../x/test", "../y/test", "own"]


def test_results_of_other_frames_are_refused(tmp_path, capsys):
    runs = [write_run(tmp_path / n, baseline=b) for n, b in (("a", 0.3), ("b", 0.3), ("c", 0.4))]
    assert call(*runs) == 2
    line = error_line(capsys, "python -m evaluation.tables")
    assert re.search(r"the clip a has other frames in .*/a than in .*/c", line)


def test_latex_takes_no_name_for_an_argument(tmp_path):
    r"""\\[9cm] would be a space, and \\* a break without a page break."""
    runs = [write_run(tmp_path / name) for name in "abc"]
    names = ["[9cm] row", "*star", "plain [1]*"]
    text = latex(build_table([*map(read_evaluation, runs)], names))
    rows = [line for line in text.splitlines() if any(name in line for name in names)]
    assert [row.split(" & ")[0] for row in rows] == ["{}[9cm] row", "{}*star", "plain [1]*"]


def test_mistakes_are_one_line(tmp_path, capsys):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    for arguments, expected in (
        ((a, b, "--names", "x"), "--names: 1 names for 2 results; give one for each"),
        ((a, b, "--names", "x", "x"), "x: two rows have this name; give --names"),
        ((a, a), "two rows have this name"),
        ((a, b, "--metrics", "l1,fid"), "--metrics fid: not measured in these results; they have"),
        ((a, tmp_path), "no metrics.json and frames.csv of an evaluation in it"),
    ):
        assert call(*arguments) == 2
        assert expected in error_line(capsys, "python -m evaluation.tables")


@pytest.mark.parametrize("tools", ["x", [], {"detector": 1}, {"detector": {"name": "dlib"}}])
def test_damaged_tools_are_one_line(tmp_path, capsys, tools):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    about = json.loads((b / "metrics.json").read_text()) | {"measured_with": tools}
    (b / "metrics.json").write_text(json.dumps(about))
    assert call(a, b) == 2
    line = error_line(capsys, "python -m evaluation.tables")
    assert f"{b / 'metrics.json'}: measured_with" in line


@pytest.mark.parametrize("key", ["checkpoint", "age", "animator", "precision"])
def test_long_texts_are_not_printed(tmp_path, capsys, key):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    about = json.loads((b / "metrics.json").read_text()) | {key: "x" * 100_000}
    (b / "metrics.json").write_text(json.dumps(about))
    assert call(a, b) == 2
    line = error_line(capsys, "python -m evaluation.tables")
    assert f"{b / 'metrics.json'}: {key}: String should have at most 4096 characters" in line


def test_results_of_earlier_versions(tmp_path):
    """Without `frechet` and with the keys that they had."""
    a = write_run(tmp_path / "a")
    about = json.loads((a / "metrics.json").read_text())
    del about["frechet"]
    (a / "metrics.json").write_text(json.dumps(about))
    assert [column.name for column in table_of(a).columns] == ["l1", "psnr"]
