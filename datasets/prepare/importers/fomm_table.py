"""Tables of clips as the video-preprocessing scripts of FOMM have them.

A CSV file (vox-metadata.csv, taichi-metadata.csv) with a row for each clip: `video_id` (its file is
VIDEO.mp4 or another video, in any subfolder; what stands behind a `#` in the id is no part of the
file's name), `start` and `end` (frame numbers, the end left out), `bbox` (left-top-right-bot in
pixels). `person_id` (the identity, first in the clip's name), `fps` (that `start` and `end` count
at), `width` and `height` (of the picture that the boxes are for) and `partition` (train or test)
may be missing: then the file's own rate and size count, and identities are split. The clip becomes
`person#video#start#end`, the numbers with six digits, as there.

Rows of the same part of a video are numbered from the second on: `person#video#start#end#2`; those
that are equal are taken once.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from math import isfinite
from pathlib import Path

from common.csv_cells import TableReader, open_table
from common.errors import UserError
from common.safe_paths import MAX_TEXT, check_name
from datasets.prepare.footage import Listed, Region
from datasets.prepare.importers.named_videos import NamedVideos
from datasets.prepare.splits import PARTITIONS
from media.crops import Box

REQUIRED = ("video_id", "start", "end", "bbox")


def read_table(path: Path, videos: NamedVideos) -> Iterator[Listed]:
    """The clips of the table, in the order of its rows.

    Raises:
        UserError: it has another layout, or a row makes no sense.
    """
    return _numbered(_parse_rows(path, videos))


def _numbered(listed: Iterable[Listed]) -> Iterator[Listed]:
    """Equal clips once, and others of the same name with a number behind it."""
    counts: Counter[str] = Counter()
    for clip in dict.fromkeys(listed):
        counts[clip.name] += 1
        number = counts[clip.name]
        yield clip if number == 1 else clip._replace(name=f"{clip.name}#{number}")


def _parse_rows(path: Path, videos: NamedVideos) -> Iterator[Listed]:
    try:
        with open_table(path) as file:
            reader = TableReader(file)
            titles = reader.fieldnames or []
            missing = [title for title in REQUIRED if title not in titles]
            if missing:
                raise UserError(
                    f"{path}: has no column {', '.join(missing)}, but {', '.join(titles)}"
                )
            for number, row in enumerate(reader, 2):
                try:
                    yield _parse_row(row, videos)
                except (ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
                    raise UserError(f"{path}: line {number} cannot be read: {error}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a CSV table: {error}") from None


def _number(text: str | None) -> float:
    number = float(text or "")
    if not isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def _parse_row(row: Mapping[str, str | None], videos: NamedVideos) -> Listed:
    video_id = row["video_id"] or ""
    start, end = (round(_number(row[title])) for title in ("start", "end"))
    left, top, right, bottom = (_number(edge) for edge in (row["bbox"] or "").split("-"))
    if start < 0 or end <= start or right <= left or bottom <= top:
        raise ValueError(f"frames {start} to {end}, box {row['bbox']} hold nothing")
    partition = row.get("partition")
    if partition and partition not in PARTITIONS:
        raise ValueError(f"partition {partition} is neither train nor test")
    size = None
    if row.get("width") and row.get("height"):
        size = (_number(row["height"]), _number(row["width"]))
    rate = Fraction(_number(row["fps"])) if row.get("fps") else None
    if (rate is not None and rate <= 0) or (size is not None and min(size) <= 0):
        raise ValueError("fps, width and height must be above 0")
    video, *rest = video_id.split("#")
    parts = [row.get("person_id") or "", *reversed(rest), video, f"{start:06d}", f"{end:06d}"]
    name = "#".join(part for part in parts if part)
    check_name(name, MAX_TEXT)
    region = Region(Box(left, top, right - left, bottom - top), size)
    footage = videos.part(video, (start, end), rate, region)
    return Listed(name, PARTITIONS[partition] if partition else None, footage)
