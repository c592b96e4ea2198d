"""One table of several evaluations, as in papers: python -m evaluation.tables RESULTS...

Prints it in Markdown and in LaTeX (booktabs): the mean over clips of each metric with half of its
95% interval, the best of each column bold, the second underlined. All evaluations must be of the
same frames. --format json prints the same numbers unrounded, and those of each clip, for programs.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from common.cli import run_entry_point
from common.errors import UserError
from common.safe_paths import printable, resolve
from evaluation.evaluations import (
    Evaluation,
    check_same_frames,
    different_tools,
    read_evaluation,
)
from evaluation.metric_names import ALL_METRICS, BASELINE, Metric, Tool
from evaluation.report import count_frames, number
from metrics.intervals import Interval, clip_means, over_clips

Rank = Literal["best", "second"]
_REPEATED: Final = "repeat source"
_ACRONYM: Final = re.compile(r"\b(l1|psnr|ssim|lpips|akd|mkr|aed|csim|fid|fvd)\b")
_NO_INTERVAL: Final = Interval(None, None, None, 0)


class Cell(NamedTuple):
    """A number of the table as text; `half` is half of the interval, empty without one."""

    mean: str
    half: str = ""
    rank: Rank | None = None


class Column(NamedTuple):
    """A metric, with a cell for each row."""

    name: str
    metric: Metric
    cells: list[Cell]

    @property
    def title(self) -> str:
        return title(self.name, self.metric)


class Table(NamedTuple):
    """Names of the rows, columns, and what to know about the numbers."""

    rows: list[str]
    columns: list[Column]
    notes: list[str]


def title(name: str, metric: Metric) -> str:
    """The name as papers write it, with an arrow to the better side: `AED squared ↓`."""
    name = _ACRONYM.sub(lambda found: found[0].upper(), name.replace("_", " "))
    return f"{name} {'↓' if metric.better == 'lower' else '↑'}"


def main(arguments: argparse.Namespace) -> None:
    runs = [read_evaluation(folder) for folder in arguments.results]
    for run in runs[1:]:
        check_same_frames(runs[0], run)
    table = build_table(
        runs,
        _names(runs, arguments.names),
        None if arguments.metrics is None else arguments.metrics.split(","),
        with_baseline=arguments.baseline,
    )
    if arguments.format == "json":
        print(json_text(table, runs))
        return
    texts = [_WRITERS[name](table) for name in _WRITERS if arguments.format in (name, "both")]
    print("\n\n".join(texts))


def build_table(
    runs: Sequence[Evaluation],
    names: Sequence[str],
    metrics: Sequence[str] | None = None,
    *,
    with_baseline: bool = False,
) -> Table:
    """Build the table of `runs`, which are of the same frames; a row for each, then the baseline.

    Args:
        metrics: the columns; None for all metrics that one of `runs` has.

    Raises:
        UserError: none of `runs` has one of `metrics`, or all have none.
    """
    measured = {name for run in runs for name in (*run.metrics, *run.frechet)}
    known = ALL_METRICS
    unknown = [name for name in metrics or () if name not in known.keys() & measured]
    if unknown:
        found = ", ".join(name for name in known if name in measured)
        raise UserError(f"--metrics {unknown[0]}: not measured in these results; they have {found}")
    columns, notes = [], []
    for name in metrics or [name for name in known if name in measured]:
        note = _difference(runs, names, name, known[name])
        cells = _cells(runs, name, known[name], ranked=note is None)
        if with_baseline:
            cells.append(
                _baseline(runs, name, known[name]) if note is None else Cell("-", "", None)
            )
        columns.append(Column(name, known[name], cells))
        notes += [f"{name}: {line}" for line in (note, _left_out(runs, names, name)) if line]
    rows = [*names, *([_REPEATED] if with_baseline else [])]
    return Table(rows, columns, [_conditions(runs), *dict.fromkeys(notes), *_tools(runs, columns)])


def _cells(runs: Sequence[Evaluation], name: str, metric: Metric, *, ranked: bool) -> list[Cell]:
    """The numbers of one metric; ranks go by what is printed, so that equal ones share a rank."""
    intervals = [_interval(run, name) for run in runs]
    texts = [number(found.mean, metric.digits) for found in intervals]
    sign = 1 if metric.better == "lower" else -1
    order = sorted({sign * float(text) for text in texts if text != "-"})
    ranks: dict[float, Rank] = {}
    if ranked and len(runs) > 1:
        ranks = dict(zip(order, ("best", "second"), strict=False))
    return [
        Cell(text, _half(found, metric), None if text == "-" else ranks.get(sign * float(text)))
        for text, found in zip(texts, intervals, strict=True)
    ]


def _interval(run: Evaluation, name: str, prefix: str = "") -> Interval:
    """Mean and interval over clips; FID and FVD have only the number itself."""
    for metric, result in run.frechet.items():
        if metric == name:
            value = result.baseline if prefix else result.model
            return Interval(value, None, None, result.num_samples)
    if name not in run.metrics:
        return _NO_INTERVAL
    return over_clips([clip.metrics[prefix + name] for clip in run.clips.values()])


def _half(found: Interval, metric: Metric) -> str:
    if found.mean is None or found.high is None:
        return ""
    return f"{found.high - found.mean:.{metric.digits}f}"


def _baseline(runs: Sequence[Evaluation], name: str, metric: Metric) -> Cell:
    """Repeating the source, which is the same in all runs that measured it in the same way."""
    run = next(run for run in runs if run.has(name))
    found = _interval(run, name, BASELINE)
    return Cell(number(found.mean, metric.digits), _half(found, metric))


def _difference(
    runs: Sequence[Evaluation], names: Sequence[str], name: str, metric: Metric
) -> str | None:
    """Say how the runs measured a metric if they did so in different ways; else None."""
    having = {label: run for run, label in zip(runs, names, strict=True) if run.has(name)}
    found = different_tools(metric.tool, having)
    parts = (f"{label} with {tool}" for label, tool in found.items())
    return f"measured in different ways, and not ranked: {'; '.join(parts)}" if found else None


def _left_out(runs: Sequence[Evaluation], names: Sequence[str], name: str) -> str | None:
    """Say in how many frames a metric is not defined, if that differs between the runs."""
    counts = {
        label: sum(int(np.isnan(clip.metrics[name]).sum()) for clip in run.clips.values())
        for run, label in zip(runs, names, strict=True)
        if name in run.metrics
    }
    if len(set(counts.values())) < 2:
        return None
    parts = ", ".join(f"{count} of {label}" for label, count in counts.items())
    return f"frames where it is not defined are left out: {parts}"


def _conditions(runs: Sequence[Evaluation]) -> str:
    first = runs[0]
    height, width = first.about["image_size"]
    frames = count_frames(first.clips.values())
    return (
        f"Means over {len(first.clips)} clips ({frames} frames of {width} x {height} pixels) with "
        "half of the 95% interval over clips; best bold, second underlined. Whether two models "
        "differ: reconstruct.py --compare, which pairs them by frame"
    )


def _tools(runs: Sequence[Evaluation], columns: Sequence[Column]) -> Iterator[str]:
    """A line for each tool that all runs with its metrics share."""
    names: dict[Tool, list[str]] = {}
    for column in columns:
        if column.metric.tool is not None:
            names.setdefault(column.metric.tool, []).append(column.name)
    for tool, measured in names.items():
        having = [run for run in runs if any(run.has(name) for name in measured)]
        one, *others = {run.tools.get(tool) for run in having}
        if not others and one is not None:
            yield f"{tool}: {one.name}; {one.weights}; {one.convention}"


def _names(runs: Sequence[Evaluation], given: Sequence[str] | None) -> list[str]:
    """Names of the rows: those given, or else of the folders; of equal ones the whole paths."""
    if given is not None and len(given) != len(runs):
        raise UserError(f"--names: {len(given)} names for {len(runs)} results; give one for each")
    if given is None:
        short = [resolve(run.folder).name for run in runs]
        given = [
            name if name and short.count(name) == 1 else str(run.folder)
            for name, run in zip(short, runs, strict=True)
        ]
    for name in given:
        if given.count(name) > 1 or name == _REPEATED:
            raise UserError(f"{name}: two rows have this name; give --names")
    return list(given)


# Formats


def markdown(table: Table) -> str:
    """The table in Markdown, with its notes below."""

    def show(cell: Cell) -> str:
        marks = {"best": "**{}**", "second": "<ins>{}</ins>", None: "{}"}  # GitHub has no <u>
        return marks[cell.rank].format(cell.mean) + (f" ± {cell.half}" if cell.half else "")

    lines = [
        ["", *(column.title for column in table.columns)],
        ["---", *("---:" for _ in table.columns)],
        *(
            [_in_markdown(row), *(show(column.cells[index]) for column in table.columns)]
            for index, row in enumerate(table.rows)
        ),
    ]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join((text, "", *(f"- {_in_markdown(note)}" for note in table.notes)))


def latex(table: Table) -> str:
    """The table in LaTeX, with its notes as comments above."""

    def show(cell: Cell) -> str:
        marks = {"best": r"\textbf{%s}", "second": r"\underline{%s}", None: "%s"}
        half = rf" {{\scriptsize$\pm$ {cell.half}}}" if cell.half else ""
        return marks[cell.rank] % cell.mean + half

    arrows = {"↓": r"$\downarrow$", "↑": r"$\uparrow$"}
    titles = [f"{column.title[:-1]}{arrows[column.title[-1]]}" for column in table.columns]
    rows = [
        [_begin_row(_in_latex(row)), *(show(column.cells[index]) for column in table.columns)]
        for index, row in enumerate(table.rows)
    ]
    return "\n".join(
        (
            r"% \usepackage{booktabs}",
            *(f"% {printable(note)}" for note in table.notes),
            rf"\begin{{tabular}}{{l{'r' * len(titles)}}}",
            r"\toprule",
            " & ".join(("", *titles)) + r" \\",
            r"\midrule",
            *(" & ".join(cells) + r" \\" for cells in rows),
            r"\bottomrule",
            r"\end{tabular}",
        )
    )


def json_text(table: Table, runs: Sequence[Evaluation]) -> str:
    """The table of `runs` in JSON: `rows` has for each row and metric the mean over clips with its
    95% interval and the means of the clips, null where there is none; `notes` those of the table.
    """

    def entry(run: Evaluation, name: str, prefix: str) -> dict[str, Any]:
        found = _interval(run, name, prefix)
        clips: dict[str, float | None] = {}
        if name in run.metrics:
            means = clip_means([clip.metrics[prefix + name] for clip in run.clips.values()])
            values = (None if np.isnan(mean) else float(mean) for mean in means)
            clips = dict(zip(run.clips, values, strict=True))
        return {"mean": found.mean, "low": found.low, "high": found.high, "clips": clips}

    rows: dict[str, dict[str, Any]] = {name: {} for name in table.rows}
    for column in table.columns:
        having = next(run for run in runs if run.has(column.name))
        for row, run, cell in zip_longest(table.rows, runs, column.cells):
            if run is not None:
                rows[row][column.name] = entry(run, column.name, "")
            elif cell.mean == "-":  # measured in different ways
                rows[row][column.name] = {"mean": None, "low": None, "high": None, "clips": {}}
            else:  # the baseline is the same in all runs that have it
                rows[row][column.name] = entry(having, column.name, BASELINE)
    return json.dumps({"rows": rows, "notes": table.notes}, indent=2, allow_nan=False)


_WRITERS: Final[dict[str, Callable[[Table], str]]] = {"markdown": markdown, "latex": latex}
_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", printable(text))


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in printable(text))


def _begin_row(text: str) -> str:
    """Keep LaTeX from taking `[` or `*` for an argument of the command before the row."""
    return f"{{}}{text}" if text.lstrip().startswith(("[", "*")) else text


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="folders that reconstruct.py wrote"
    )
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="names of the rows, one for each folder; default: the names of the folders",
    )
    parser.add_argument(
        "--metrics", metavar="A,B,...", help="the columns, such as l1,psnr,fid; default: all"
    )
    parser.add_argument(
        "--baseline", action="store_true", help="also a row for repeating the source"
    )
    parser.add_argument("--format", choices=(*_WRITERS, "both", "json"), default="both")
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
