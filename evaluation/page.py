"""Writes an evaluation as an HTML page: metrics, and each clip with its video and metrics."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from common.files import replacing
from evaluation.frechet_results import FrechetResults, notes, read_frechet
from evaluation.metric_names import BASELINE, FRECHET, METRICS, Metric
from evaluation.published_tables import LEFT_OUT, PublishedTable, own_numbers
from evaluation.report import PSNR_NOTE, MeasuredClip, Summaries, bounds, mean_and_bounds, number
from evaluation.results_folder import clip_path
from metrics.intervals import clip_means

_STYLE = Path(__file__).with_name("page.css")
_ARROWS = {"lower": "↓", "higher": "↑"}  # the better direction


def write_page(
    path: Path,
    about: Mapping[str, Any],
    summaries: Summaries,
    clips: Sequence[MeasuredClip],
    columns: Sequence[str],
    published: PublishedTable | None,
) -> None:
    """Write the page to `path`. It opens from disk and links only to the clips beside it.

    Args:
        about: what was evaluated, as in metrics.json.
        columns: titles of the pictures that are side by side in the videos.
        published: published numbers to show beside the model's own, if any.
    """
    height, width = about["image_size"]
    subject = escape(f"{about['data']}, {about['split']}")
    amount = f"{about['num_clips']} clips, {about['num_frames']} frames"
    origin = escape(f"{about['checkpoint']}, {about['age']}, animator {about['animator']}")
    whole, regions = _split_by_region(summaries)
    cards = [_card(clip, columns, (height, width * len(columns))) for clip in clips]
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Reconstruction: {subject}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<h1>Reconstruction</h1>
<p>{subject}: {amount}, {width} &times; {height} pixels</p>
<p class="quiet">{origin}</p>
</header>
<h2>Metrics</h2>
<div class="panel">
{_summary_table(summaries, whole, read_frechet(about))}
</div>
{_by_region(_summary_table(summaries, regions, {}), regions, kind="panel")}
<ul class="notes">
{_lines("li", _notes(about, summaries))}
</ul>
{_published(published, summaries)}
<h2>Clips</h2>
<main class="cards">
{"".join(cards)}</main>
</body>
</html>
"""
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _split_by_region(found: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split the metrics `found`, in the order of the tables: of the whole frame, and by region."""
    names = [name for name in METRICS if name in set(found)]
    regions = [name for name in names if METRICS[name].tool == "salient"]
    return [name for name in names if name not in regions], regions


def _by_region(table: str, regions: Sequence[str], kind: str = "") -> str:
    """Make `table` an element that can be unfolded; empty if there are no `regions`."""
    if not regions:
        return ""
    summary = "Salient region and the rest"
    return f'<details class="{kind}"><summary>{summary}</summary>\n{table}\n</details>'


def _summary_table(summaries: Summaries, names: Sequence[str], frechet: FrechetResults) -> str:
    heads = ("model", "over clips, 95%", "over frames, 95%", "repeat source", "frames")
    rows = []

    def add_row(name: str, metric: Metric, cells: Sequence[str]) -> None:
        labelled = zip(heads, cells, strict=True)
        rows.append(
            f'<th scope="row">{name} {_ARROWS[metric.better]}'
            f"<small>{escape(metric.meaning)}</small></th>"
            + "".join(f'<td data-label="{head}">{cell}</td>' for head, cell in labelled)
        )

    for name in names:
        metric = METRICS[name]
        model, baseline = summaries[name], summaries[BASELINE + name]
        own, repeated = _beside(model.over_frames.mean, baseline.over_frames.mean, metric)
        cells = (
            own,
            f'<span class="quiet">{mean_and_bounds(model.over_clips, metric.digits)}</span>',
            f'<span class="quiet">{bounds(model.over_frames, metric.digits)}</span>',
            repeated,
            str(model.over_frames.num_values),
        )
        add_row(name, metric, cells)
    for name, result in frechet.items():
        own, repeated = _beside(result.model, result.baseline, FRECHET[name])
        add_row(name, FRECHET[name], (own, "-", "-", repeated, str(result.num_frames)))
    return _table(("", *heads), rows, kind="wide")


def _notes(about: Mapping[str, Any], summaries: Summaries) -> Iterable[str]:
    yield (
        "The first frame of each clip is the source, every frame a driving frame. Means are over "
        "frames; frames where a metric is not defined are left out, and not counted under frames. "
        "An interval over frames assumes that they are independent and is too narrow."
    )
    if "psnr" in summaries:
        yield PSNR_NOTE
    for kind, description in about["measured_with"].items():
        yield (
            f"{kind}: {description['name']}; {description['weights']}; "
            f"{description['convention']}; licence: {description['licence']}"
        )
    yield from notes(read_frechet(about))
    yield from about["left_out"]
    for name, reason in about.get("failed", {}).items():
        yield f"clip {name} failed and is in none of these numbers: {reason}"


def _published(table: PublishedTable | None, summaries: Summaries) -> str:
    if table is None:
        return ""
    rows = [
        f'<th scope="row">{escape(method)}</th>' + _lines("td", values)
        for method, values in (*table.rows.items(), ("this model", own_numbers(table, summaries)))
    ]
    return (
        f"<h2>{escape(table.title)}</h2>\n"
        f'<div class="panel">\n{_table(("", *table.metrics), rows)}\n</div>\n'
        f'<ul class="notes">\n<li>{escape(LEFT_OUT)}</li>\n</ul>'
    )


def _card(clip: MeasuredClip, columns: Sequence[str], size: tuple[int, int]) -> str:
    """One clip: its name, its video of `size` (height, width), and its metrics."""
    height, width = size
    link = quote(clip_path(clip.name).as_posix())
    whole, regions = _split_by_region(clip.metrics)
    return f"""<article class="card">
<header><h3>{escape(clip.name)}</h3><small>{clip.num_frames} frames</small></header>
<div class="columns quiet">{_lines("span", columns)}</div>
<video src="{link}" style="--ratio: {width / height:.6g}" controls loop muted playsinline \
preload="metadata"></video>
{_clip_table(clip, whole)}
{_by_region(_clip_table(clip, regions), regions)}
</article>
"""


def _clip_table(clip: MeasuredClip, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        metric = METRICS[name]
        means = clip_means([clip.metrics[name], clip.metrics[BASELINE + name]])
        own, repeated = (None if mean != mean else float(mean) for mean in means)
        cells = _lines("td", _beside(own, repeated, metric), raw=True)
        rows.append(f'<th scope="row">{name} {_ARROWS[metric.better]}</th>{cells}')
    return _table(("", "model", "repeat source"), rows)


def _beside(own: float | None, repeated: float | None, metric: Metric) -> tuple[str, str]:
    """The model's number and that of repeating the source; the better one is bold."""
    texts = number(own, metric.digits), number(repeated, metric.digits)
    if own is None or repeated is None or own == repeated:
        return texts
    if (own < repeated) == (metric.better == "lower"):
        return f"<strong>{texts[0]}</strong>", texts[1]
    return texts[0], f"<strong>{texts[1]}</strong>"


def _table(heads: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    return (
        f'<table class="{kind}">\n<thead><tr>'
        + "".join(f'<th scope="col">{head}</th>' for head in heads)
        + "</tr></thead>\n<tbody>\n"
        + "".join(f"<tr>{row}</tr>\n" for row in rows)
        + "</tbody>\n</table>"
    )


def _lines(tag: str, texts: Iterable[str], *, raw: bool = False) -> str:
    """Put each text into an HTML element `tag`; `raw` texts are HTML already."""
    return "\n".join(f"<{tag}>{text if raw else escape(text)}</{tag}>" for text in texts)
