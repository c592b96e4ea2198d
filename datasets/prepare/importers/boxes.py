"""Lists of parts of videos with crop boxes, over video files that lie here.

Two layouts are read:

A CSV table as the video-preprocessing scripts of FOMM have it (vox-metadata.csv,
taichi-metadata.csv): a row for each clip with `video_id` (its file is VIDEO.mp4 or another video,
in any subfolder; what stands behind a `#` in the id is no part of the file's name), `start` and
`end` (frame numbers, the end left out), `bbox` (left-top-right-bot in pixels). `person_id`
(the identity, first in the clip's name), `fps` (that `start` and `end` count at), `width` and
`height` (of the picture that the boxes are for) and `partition` (train or test) may be missing:
then the file's own rate and size count, and identities are split. The clip becomes
`person#video#start#end`, the numbers with six digits, as there.

A folder of text files as VoxCeleb comes with them (txt/ID/VIDEO/00001.txt): a head that is left
out, a line of titles `FRAME X Y W H`, and a line for each frame, at 25 frames per second, in
shares of the picture (VoxCeleb2) or in pixels (VoxCeleb1), assumed to be those of a video 360 high,
as FOMM's crop_vox.py does. The clip is cut out along the box around all of its boxes, widened by a
tenth on each side, as there; that script also cuts a track into chunks where the face moves, while
here a track is one clip.

Rows of the same part of a video are numbered from the second on: `person#video#start#end#2`; those
that are equal are taken once.

Boxes of another shape than the image are widened to it, never squashed; what lies outside of the
picture repeats its edge.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.safe_paths import MAX_TEXT, check_name
from datasets.prepare.footage import BoxedClip, Footage, Region, Unreadable
from media.crops import Box
from media.video import CONTAINER_SUFFIXES

PARTITIONS = {"train": "train", "dev": "train", "test": "test", "val": "test"}
REQUIRED = ("video_id", "start", "end", "bbox")
TRACK_RATE = Fraction(25)
TITLES = ["FRAME", "X", "Y", "W", "H"]
INCREASE = 0.1  # of a track's box, on each side
TRACK_HEIGHT = 360  # of the video that a track's pixels belong to
# Coordinates above it are pixels: shares pass 1 only where a box leaves the picture.
MAX_SHARE = 2.0


class Listed(NamedTuple):
    """A clip of a list; `split` is None where the list does not say."""

    name: str
    split: str | None
    footage: Footage


Files = dict[str, list[Path]]  # videos by their names without suffix


def read_boxes(metadata: Path, videos: Path) -> list[Listed]:
    """The clips that `metadata`, a CSV file or a folder of text files, lists over `videos`.

    Raises:
        UserError: a file is missing or has another layout, or not one of its videos is there.
    """
    if not metadata.exists():
        raise UserError(f"{metadata}: no such file or folder; give a CSV file, or a folder of txt")
    files: Files = defaultdict(list)
    for path in _videos_in(videos):
        files[path.stem].append(path)
    if metadata.is_dir():
        listed = [*_read_tracks(metadata, files)]
    else:
        listed = [*_numbered(_read_table(metadata, files))]
    if not listed:
        raise UserError(f"{metadata}: lists no clips")
    if all(isinstance(clip.footage, Unreadable) for clip in listed):
        raise UserError(
            f"{videos}: has none of the videos of {metadata}; the first would be "
            f"{listed[0].footage.source}"
        )
    return listed


def _videos_in(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; it should hold the videos of the list")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in CONTAINER_SUFFIXES and not path.name.startswith("."):
            yield path


def _footage(
    files: Files,
    video: str,
    span: tuple[int, int],
    rate: Fraction | None,
    region: Region,
) -> Footage:
    if video not in files:
        return Unreadable(f"{video}.mp4", f"{video}.mp4: no video of this name")
    if len(files[video]) > 1:
        first, second = files[video][:2]
        raise UserError(f"{first} and {second}: two videos of one name; keep one of them")
    return BoxedClip(files[video][0], *span, rate, region)


def _numbered(listed: Iterable[Listed]) -> Iterator[Listed]:
    """Equal clips once, and others of the same name with a number behind it."""
    counts: Counter[str] = Counter()
    for clip in dict.fromkeys(listed):
        counts[clip.name] += 1
        number = counts[clip.name]
        yield clip if number == 1 else clip._replace(name=f"{clip.name}#{number}")


def _read_table(path: Path, files: Files) -> Iterator[Listed]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            titles = reader.fieldnames or []
            missing = [title for title in REQUIRED if title not in titles]
            if missing:
                raise UserError(
                    f"{path}: has no column {', '.join(missing)}, but {', '.join(titles)}"
                )
            for number, row in enumerate(reader, 2):
                try:
                    yield _parse_row(row, files)
                except (ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
                    raise UserError(f"{path}: line {number} cannot be read: {error}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a CSV table: {error}") from None


def _number(text: str | None) -> float:
    number = float(text or "")
    if not isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def _parse_row(row: Mapping[str, str | None], files: Files) -> Listed:
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
    footage = _footage(files, video, (start, end), rate, region)
    return Listed(name, PARTITIONS[partition] if partition else None, footage)


def _read_tracks(folder: Path, files: Files) -> Iterator[Listed]:
    paths = sorted(folder.rglob("*.txt"))
    tracks = [path for path in paths if len(path.relative_to(folder).parts) >= 3]
    if paths and not tracks:  # others beside the tracks may be notes
        raise UserError(f"{paths[0]}: expected ID/VIDEO/{paths[0].name} in {folder}")
    for path in tracks:
        person, video = path.parts[-3:-1]
        (start, end), region = _read_track(path)
        name = f"{person}#{video}#{start:06d}#{end:06d}"
        yield Listed(name, None, _footage(files, video, (start, end), TRACK_RATE, region))


def _read_track(path: Path) -> tuple[tuple[int, int], Region]:
    """The first frame and the one behind the last, and the widened box around all boxes."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line.split() for line in text.splitlines()]
        if TITLES not in lines:
            raise ValueError(f"no line {' '.join(TITLES)}")
        rows = np.array([row for row in lines[lines.index(TITLES) + 1 :] if row], np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(TITLES) or rows[:, 3:].min() <= 0:
            raise ValueError(f"expected lines {' '.join(TITLES)}, widths and heights above 0")
        if not np.isfinite(rows).all() or rows[:, 0].min() < 0:
            raise ValueError("expected finite numbers, and frames from 0 on")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a list of boxes: {error}") from None
    numbers, corners, sizes = rows[:, 0], rows[:, 1:3], rows[:, 3:]
    first, last = corners.min(axis=0), (corners + sizes).max(axis=0)
    left, top = first - INCREASE * (last - first)
    width, height = (1 + 2 * INCREASE) * (last - first)
    in_shares = rows[:, 1:].max() <= MAX_SHARE
    size = (1, 1) if in_shares else (TRACK_HEIGHT, None)
    region = Region(Box(left, top, width, height), size)
    return (int(numbers.min()), int(numbers.max()) + 1), region
