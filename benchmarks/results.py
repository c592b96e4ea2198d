"""Make the tables of docs/results.md anew from the measurements in docs/results/.

    python -m benchmarks.results

A table stands between two comments in the page, which Markdown does not show:

    <!-- table: NAME -->
    <!-- end -->

NAME is one of `TABLES`. The measurements are the reports that other benchmarks write: below each
command stand its files in docs/results/, and the tables that are made of them. The page has the
commands with all their options. Nothing is trained or measured here.

    python -m benchmarks.ablation ... --output FOLDER
        (each is a copy of FOLDER/ablation.json)
        ablation_puppets.json       ablation-puppets, ablation-puppets-differences
        ablation_heads.json         ablation-heads
        ablation_motion_start.json  motion-start, motion-start-differences
        ablation_late.json          late, late-prioritycut
    python -m benchmarks.demo
        (a copy of runs/demo/summary.json)
        demo.json                   demo
    python -m evaluation.tables ... --format json > docs/results/heads_minutes.json
        heads_minutes.json          heads-minutes
    python -m benchmarks.background_inputs ... --output docs/results/background_inputs.json
        background_inputs.json      background-inputs
    python -m benchmarks.puppets ... --output docs/results/puppets.json
        puppets.json                puppets-masks, puppets-thresholds, puppets-animation,
                                    puppets-swap
    python -m benchmarks.joints ... --output docs/results/joints.json
        joints.json                 joints
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import background_inputs, joints
from benchmarks.ablation_report import REFERENCE, paired_differences
from benchmarks.ablation_scores import METRICS
from benchmarks.tables import (
    Cell,
    animation_table,
    demo_table,
    markdown_table,
    masks_table,
    summary_text,
    swap_table,
    thresholds_table,
)
from common.cli import run_entry_point
from common.errors import UserError
from common.files import replacing
from common.json_files import read_json
from common.safe_paths import read_plain_file
from evaluation.metric_names import ALL_METRICS
from evaluation.report import number
from evaluation.tables import title

PAGE: Final = Path("docs/results.md")
PRIORITYCUT: Final = "prioritycut"  # the row that `prioritycut_table` compares with all others
_MAX_BYTES: Final = 2**24  # of the page
_MARK: Final = re.compile(r"<!-- table: (?P<table>\S+) -->\r?\n|<!-- end -->")
_ROWS: Final = {
    "fomm": "FOMM",
    "fomm-skip": "+ skip connection",
    "fomm-prior": "+ keypoint prior",
    "fomm-prior-start": "+ prior, heatmap start",
    "fomm-prior-skip": "+ prior, skip connection",
    "fomm-all": "+ all three",
    "fomm-adv": "FOMM+",
    "unet": "U-Net",
    "cutmix": "CutMix",
    "prioritycut": "PriorityCut",
    "prioritycut-masks": "PriorityCut, foreground of the masks",
    "fomm-adv-equal": "FOMM+, features as much as in the U-Net",
    "prioritycut-least": "PriorityCut, least occluded first",
    "prioritycut-random": "PriorityCut, any of the figure",
    "prioritycut-frame": "PriorityCut, of the whole frame",
    "x2face": "X2Face",
    "monkey-net": "Monkey-Net",
    "monkey-net-prioritycut": "Monkey-Net + PriorityCut",
    "tpsmm": "TPSMM",
    "tpsmm-prioritycut": "TPSMM + PriorityCut",
    "source": "repeat the source",
}
_COLUMNS: Final = {
    "l1": "L1",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "figure_l1": "figure L1",
    "figure_psnr": "figure PSNR",
    "ssim_masked": "masked SSIM",
    "hidden_l1": "hidden L1",
    "hidden_psnr": "hidden PSNR",
}

Report = Mapping[str, Any]


def seeds_table(report: Report) -> str:
    """The mean of each metric of an ablation, with the standard deviation over seeds and the
    interval over clips: a line for each row, then one for the baseline.
    """
    summaries = {row: entry["summary"] for row, entry in report["rows"].items()}
    summaries["source"] = report["baseline"]["summary"]
    return _table(summaries, lambda name, summary: summary_text(summary, _form(name)))


def differences_table(report: Report) -> str:
    """Differences to the reference row of an ablation, like `seeds_table`."""
    differences = {
        row: entry[f"difference_to_{REFERENCE}"]
        for row, entry in report["rows"].items()
        if row != REFERENCE
    }
    return _table(differences, lambda name, summary: summary_text(summary, _form(name), "+"))


def prioritycut_table(report: Report) -> str:
    """PriorityCut minus each other row of an ablation, paired by clip and by the seeds of both."""
    scores = {row: entry["scores"] for row, entry in report["rows"].items()}
    own = scores.pop(PRIORITYCUT)
    differences = {}
    for row, others in scores.items():
        seeds = [seed for seed in own if seed in others]
        if seeds:
            pairs = [own[seed] for seed in seeds], [others[seed] for seed in seeds]
            differences[row] = paired_differences(*pairs)
    return _table(differences, lambda name, summary: summary_text(summary, _form(name), "+"))


def clips_table(report: Report) -> str:
    """The mean of each metric of an ablation with one seed, and each clip's in parentheses."""
    (seed,) = {seed for entry in report["rows"].values() for seed in entry["scores"]}
    scores = {row: entry["scores"][seed] for row, entry in report["rows"].items()}
    scores["source"] = report["baseline"]["scores"]

    def text(name: str, values: list[float]) -> str:
        form = _form(name)
        mean = sum(values) / len(values)
        return f"{mean:{form}} ({', '.join(f'{value:{form}}' for value in values)})"

    return _table(scores, text)


def evaluations_table(report: Report) -> str:
    """Evaluations of the same few clips side by side, a line for each metric: the mean over clips,
    and each clip's in parentheses.
    """

    def text(entry: Mapping[str, Any], digits: int) -> str:
        clips = ", ".join(number(value, digits) for value in entry["clips"].values())
        return number(entry["mean"], digits) + (f" ({clips})" if clips else "")

    rows = report["rows"]
    lines: list[dict[str, Cell]] = []
    for name in next(iter(rows.values())):
        metric = ALL_METRICS[name]
        line: dict[str, Cell] = {"": title(name, metric)}
        for row, entries in rows.items():
            line[row] = text(entries[name], metric.digits)
        lines.append(line)
    return markdown_table(lines)


# The file in docs/results/ and the function that makes the table from its content.
TABLES: Final[dict[str, tuple[str, Callable[[Any], str]]]] = {
    "ablation-puppets": ("ablation_puppets.json", seeds_table),
    "ablation-puppets-differences": ("ablation_puppets.json", differences_table),
    "ablation-heads": ("ablation_heads.json", clips_table),
    "motion-start": ("ablation_motion_start.json", seeds_table),
    "motion-start-differences": ("ablation_motion_start.json", differences_table),
    "demo": ("demo.json", demo_table),
    "late": ("ablation_late.json", seeds_table),
    "late-prioritycut": ("ablation_late.json", prioritycut_table),
    "heads-minutes": ("heads_minutes.json", evaluations_table),
    "background-inputs": ("background_inputs.json", background_inputs.tables),
    "puppets-masks": ("puppets.json", masks_table),
    "puppets-thresholds": ("puppets.json", thresholds_table),
    "puppets-animation": ("puppets.json", animation_table),
    "puppets-swap": ("puppets.json", swap_table),
    "joints": ("joints.json", joints.side_by_side),
}


def renew(page: str, folder: Path) -> str:
    """The text of a page with all its tables made anew from the reports in `folder`.

    Raises:
        UserError: a table of the page is unknown or has no end, or a report is missing, damaged or
            without what the table shows.
    """
    texts, begin, name = [], 0, None
    for mark in _MARK.finditer(page):
        if name is not None:
            if mark["table"] is not None:
                break
            texts.append(_lines_of(name, folder, "\r\n" if page[begin - 2] == "\r" else "\n"))
        else:
            texts.append(page[begin : mark.start()])
        texts.append(mark[0])
        begin, name = mark.end(), mark["table"]
    else:
        if name is None:
            return "".join((*texts, page[begin:]))
    # What follows the table would be taken for a part of it, and be lost.
    raise UserError(f"{PAGE}: the table {name!r} has no line <!-- end --> before the next; add it")


def _lines_of(name: str, folder: Path, line_end: str) -> str:
    """The table of this name, between two empty lines; raises as `renew`."""
    if name not in TABLES:
        raise UserError(
            f"{PAGE}: no table is called {name!r}; there are {', '.join(sorted(TABLES))}"
        )
    file, make = TABLES[name]
    report = _read(folder / file)
    try:
        return f"\n{make(report)}\n\n".replace("\n", line_end)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{folder / file}: the table {name} cannot be made of it "
            f"({type(error).__name__}: {error}); write it anew by the command that "
            "`python -m benchmarks.results --help` names"
        ) from error


def row_name(row: str) -> str:
    """What the page calls a row of an ablation, or the baseline `source`.

    Raises:
        KeyError: it has no name here.
    """
    return _ROWS[row]


def main(arguments: argparse.Namespace) -> None:
    page = Path(arguments.page)
    try:
        text = read_plain_file(page, _MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--page {page}: cannot be read ({error})") from None
    renewed = renew(text, page.with_suffix(""))
    if renewed == text:
        print(f"{page}: the tables agree with {page.with_suffix('')}/")
        return
    with replacing(page) as temporary:
        temporary.write_text(renewed, encoding="utf-8", newline="")
    print(f"{page}: tables made anew from {page.with_suffix('')}/")


def _table(rows: Mapping[str, Mapping[str, Any]], text: Callable[[str, Any], str]) -> str:
    """A line for each row, with the metrics that all rows have."""
    names = [name for name in METRICS if all(name in values for values in rows.values())]
    lines: list[dict[str, Cell]] = [
        {"": row_name(row), **{_COLUMNS[name]: text(name, values[name]) for name in names}}
        for row, values in rows.items()
    ]
    return markdown_table(lines)


def _form(name: str) -> str:
    """The digits of a metric: .01 dB, .001 of SSIM and .0001 of L1."""
    return ".2f" if "psnr" in name else ".3f" if "ssim" in name else ".4f"


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); restore it from the repository"
        ) from None


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--page", default=str(PAGE), metavar="FILE.md", help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
