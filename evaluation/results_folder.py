"""A folder of results that a later run replaces as a whole, and nothing else in it."""

import csv
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from datasets.container import os_reason
from datasets.frame_folder import RATE_FILE
from datasets.video_writer import FRAME_NAME
from errors import UserError
from evaluation.report import CLIPS_FILE, FRAMES_FILE, SUMMARY_FILE

PAGE_FILE = "index.html"
CLIPS_FOLDER = Path("clips")
SAVED_FOLDERS = {name: Path("frames") / name for name in ("driving", "prediction")}
_UNFINISHED = ".unfinished"


def clip_path(name: str) -> Path:
    """Of the side-by-side video of a clip, in a folder of results."""
    return CLIPS_FOLDER / f"{name}.mp4"


@contextmanager
def replacing_results(output: Path, clips: Sequence[str], *, saves_frames: bool) -> Iterator[Path]:
    """A folder to write the results of `clips` to, which take their place in `output` at the end,
    and that of an earlier run's results. If the block fails, the earlier ones stay.

    Raises:
        UserError: `output` cannot be written, or holds a file that no earlier run wrote where a
            result must go.
    """
    earlier = _earlier_results(output)
    for path in _entries(clips, saves_frames):
        if (output / path).exists() and path not in earlier:
            raise UserError(
                f"--output {output}: holds {path}, which no earlier run wrote; choose another "
                "folder"
            )
    is_new = not output.exists()
    unfinished = output / _UNFINISHED
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        unfinished.mkdir(parents=True)
        yield unfinished
        _remove(output, earlier)
        for path in sorted(unfinished.rglob("*")):
            if path.is_file():
                target = output / path.relative_to(unfinished)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {os_reason(error)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # there are results in it
                output.rmdir()


def _entries(clips: Sequence[str], saves_frames: bool) -> list[Path]:
    """Files, and folders of frames, that the results of `clips` consist of."""
    entries = [Path(name) for name in (SUMMARY_FILE, CLIPS_FILE, FRAMES_FILE, PAGE_FILE)]
    entries += [clip_path(name) for name in clips]
    if saves_frames:
        entries += [folder / name for folder in SAVED_FOLDERS.values() for name in clips]
    return entries


def _earlier_results(output: Path) -> list[Path]:
    """The entries of the run that wrote `output`; none where its two tables are not there."""
    try:
        summary = json.loads((output / SUMMARY_FILE).read_text())
        with (output / CLIPS_FILE).open(newline="") as file:
            clips = [row["clip"] for row in csv.DictReader(file)]
        return _entries(clips, summary.get("saved_frames", False))
    except (OSError, ValueError, KeyError, AttributeError):
        return []


def _remove(output: Path, entries: Sequence[Path]) -> None:
    """Delete results, of a folder the frames alone, and the folders that are empty then."""
    for entry in entries:
        path = output / entry
        if path.is_dir():
            for frame in path.iterdir():
                if frame.name == RATE_FILE or FRAME_NAME.fullmatch(frame.name):
                    frame.unlink()
        else:
            path.unlink(missing_ok=True)
        for folder in (path, *path.parents):
            if folder == output:
                break
            with suppress(OSError):  # not empty, or a file that is gone
                folder.rmdir()
