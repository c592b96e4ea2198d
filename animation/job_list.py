"""Lists the animations to make: every source with every clip, or the pairs of a table."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from animation.inputs import is_file_name
from animation.jobs import Job
from common.csv_cells import TableReader, open_table
from common.errors import UserError
from common.safe_paths import check_inner_path, is_file, is_folder, refuse_links
from media.folder_summary import log_left_out
from media.images import IMAGE_SUFFIXES
from media.system_files import partition, user_entries, without_empty_folders
from media.video import is_clip, natural_order

_LONGEST_NAME = 200  # bytes; file systems allow 255, but temporary files have longer names
_MAX_BYTES = 2**24  # of a list of pairs: some hundred thousand lines
_MAX_CELLS = 2**20  # of them: a quarter of a million lines take half a minute and 1 GB
_NUM_SHOWN = 10  # names of columns in a message
_COLUMNS = ("source", "driving", "background", "output")  # only the first two are required


def is_many(source: str, driving: str) -> bool:
    """Whether `source` is a folder of images, or `driving` a folder of clips."""
    return is_folder(Path(source)) or _holds_clips(Path(driving))


def list_jobs(
    source: str, driving: str, background: str | None, output: Path, suffix: str
) -> list[Job]:
    """List the jobs for every source with every driving clip; their results go to `output`.

    Args:
        source: an image, or a folder of images.
        driving: a clip, or a folder of clips; a folder of images is one clip.
        output: folder of the results.
        suffix: suffix of the results, such as `.mp4`; empty for folders of png frames.
    """
    sources = _list_images(Path(source)) if is_folder(Path(source)) else [Path(source)]
    drivings = _list_clips(Path(driving)) if _holds_clips(Path(driving)) else [Path(driving)]
    jobs = [
        Job(str(image), str(clip), background, output / _result_name(image, clip, suffix))
        for image, clip in product(sources, drivings)
    ]
    return _check_names(jobs)


def read_pairs(
    path: Path,
    background: str | None,
    output: Path,
    suffix: str,
    *,
    allow_outside: bool = False,
) -> list[Job]:
    """Read jobs from a CSV file with columns source, driving and, if wanted, background, output.

    Names of inputs are relative to the folder of the file, outputs to the folder `output`.

    Args:
        background: background of the rows that name none.
        suffix: as in `list_jobs`.
        allow_outside: outputs may lie outside of `output`.

    Raises:
        UserError: a line is incomplete or not allowed; names the file, the line and the problem.
    """
    try:
        with open_table(path, _MAX_BYTES) as file:
            reader = TableReader(file, _MAX_CELLS)
            columns = reader.fieldnames or []
            lines = [(reader.line_num, line) for line in reader]
    except UserError as error:
        raise UserError(f"--pairs {error}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not a CSV file ({error})"
        raise UserError(f"--pairs {path}: {reason}") from None
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown or not {"source", "driving"} <= set(columns):
        raise UserError(
            f"--pairs {path}: its columns are {_listed(columns) or 'missing'}; the first line "
            "must name source, driving and, if wanted, background, output"
        )
    jobs = []
    for number, line in lines:
        for column in ("source", "driving"):
            if not line[column]:
                raise UserError(f"--pairs {path}: line {number} has no {column}")
        if any("\0" in (line.get(column) or "") for column in _COLUMNS):
            raise UserError(f"--pairs {path}: line {number} has a name with a NUL character")
        image, clip = path.parent / line["source"], path.parent / line["driving"]
        given = line.get("output")
        if given and not allow_outside:
            _check_inside(output, given, f"--pairs {path}: line {number}")
        name = given or _result_name(image, clip, suffix)
        behind = line.get("background") or ""
        if behind and is_file_name(behind):
            behind = os.path.join(path.parent, behind)  # keeps the ./ of ./source
        jobs.append(Job(str(image), str(clip), behind or background, output / name))
    if not jobs:
        raise UserError(f"--pairs {path}: there is no line below the names of the columns")
    return _check_names(jobs)


def _listed(columns: Sequence[str]) -> str:
    text = ", ".join(columns[:_NUM_SHOWN])
    return f"{text:.200}{' ...' if len(text) > 200 or len(columns) > _NUM_SHOWN else ''}"


def _check_inside(output: Path, name: str, place: str) -> None:
    """Raise UserError if the path `name` leads out of the folder `output`."""
    try:
        inner = check_inner_path(name)
        refuse_links(output, inner.parent)
    except ValueError as error:
        raise UserError(
            f"{place}: its output would not be in --output {output}: {error}; name a place in it, "
            "or add --allow-outside"
        ) from None


def _result_name(source: Path, driving: Path, suffix: str) -> str:
    """Name of the result of `source` and `driving`, such as a--b.mp4."""
    driving_name = driving.name if is_folder(driving) else driving.stem
    return f"{source.stem}--{driving_name}{suffix}"


def _check_names(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs; UserError if two have the same output, or a name is too long."""
    ((output, count),) = Counter(job.output for job in jobs).most_common(1)
    if count > 1:
        raise UserError(
            f"{output}: {count} animations would have this name; give their pairs with --pairs, "
            "with a column output"
        )
    for job in jobs:
        if len(os.fsencode(job.output.name)) > _LONGEST_NAME:
            raise UserError(
                f"{job.output}: too long a name; give it a shorter one with --pairs, in a column "
                "output"
            )
    return list(jobs)


def _list_images(folder: Path) -> list[Path]:
    suffixes = (*IMAGE_SUFFIXES, ".gif")  # of a GIF the first frame is used
    found, others = partition(
        _visible(folder), lambda entry: entry.suffix.lower() in suffixes and is_file(entry)
    )
    if not found:
        raise UserError(f"--source {folder}: no images (png, jpg) in this folder")
    log_left_out(f"--source {folder}", others)
    return found


def _list_clips(folder: Path) -> list[Path]:
    entries, num_empty = without_empty_folders(_visible(folder))
    clips, others = partition(entries, is_clip)
    log_left_out(f"--driving {folder}", others, num_empty)
    return clips


def _holds_clips(path: Path) -> bool:
    """Whether `path` is a folder of clips; a folder of images is a single clip."""
    if not is_folder(path):
        return False
    entries, _ = without_empty_folders(_visible(path))
    frames, others = partition(entries, lambda entry: entry.suffix.lower() in IMAGE_SUFFIXES)
    clips = [entry for entry in others if is_clip(entry)]
    if frames and clips:
        raise UserError(
            f"--driving {path}: holds images ({frames[0].name}) and clips ({clips[0].name}); keep "
            "the frames of a clip, or the clips, in a folder of their own"
        )
    return bool(clips)


def _visible(folder: Path) -> list[Path]:
    return sorted(user_entries(folder), key=lambda entry: natural_order(entry.name))
