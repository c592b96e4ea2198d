"""Where the checkpoints of a run lie: listing them, and keeping the newest and the best."""

import os
import re
import shutil
from pathlib import Path

from common.errors import UserError
from common.files import replacing

RUNS = Path("runs")
WRITTEN = r"(step-\d{8}|best)\.pt"  # the names of what lies there
_STEP_FILE = re.compile(r"step-(\d{8})\.pt")


def checkpoint_folder(output_dir: Path) -> Path:
    return output_dir / "checkpoints"


def step_path(output_dir: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies in a run folder."""
    return checkpoint_folder(output_dir) / f"step-{step:08d}.pt"


def best_path(output_dir: Path) -> Path:
    """Where the checkpoint with the lowest validation L1 lies in a run folder."""
    return checkpoint_folder(output_dir) / "best.pt"


def folder_of_run(path: Path) -> Path:
    """The folder of the run that wrote the checkpoint `path`; if it lies elsewhere, its own."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def list_all(output_dir: Path) -> list[Path]:
    """Every checkpoint of a run: those of steps, the newest first, then best.pt.

    Raises:
        UserError: the folder cannot be listed, which must not be taken for an empty one.
    """
    folder = checkpoint_folder(output_dir)
    names = [name for name, is_file in _scan(folder).items() if is_file]
    steps = sorted((name for name in names if _STEP_FILE.fullmatch(name)), reverse=True)
    return [folder / name for name in (*steps, *(name for name in names if name not in steps))]


def check_names(output_dir: Path) -> None:
    """Make sure that no name of a checkpoint is taken by something else.

    Raises:
        UserError: as `list_all`, or it is; names it.
    """
    folder = checkpoint_folder(output_dir)
    for name, is_file in _scan(folder).items():
        if not is_file:
            raise UserError(f"{folder / name}: a folder, where a checkpoint must go; move it away")


def _scan(folder: Path) -> dict[str, bool]:
    """What has the name of a checkpoint, and whether it is a file."""
    try:
        with os.scandir(folder) as entries:
            return {e.name: e.is_file() for e in entries if re.fullmatch(WRITTEN, e.name)}
    except FileNotFoundError:
        if folder.is_symlink():
            raise UserError(
                f"{folder}: a link to a folder that is not there; mount its disk, or remove the "
                "link"
            ) from None
        return {}
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be listed ({error.strerror or error}); mend it, or choose another "
            "folder with run.output_dir=..."
        ) from error


def list_steps(output_dir: Path, after: int = -1) -> list[Path]:
    """Checkpoints of a run later than step `after`, the newest first.

    Raises:
        UserError: as `list_all`.
    """
    matches = [(path, _STEP_FILE.fullmatch(path.name)) for path in list_all(output_dir)]
    return [path for path, match in matches if match is not None and int(match[1]) > after]


def prune(newest: Path, keep: int) -> None:
    """Delete all but `keep` checkpoints, counted backwards from `newest`.

    best.pt is another file and stays; so does a later one, torn and skipped when the run resumed,
    until it is written again.

    Raises:
        UserError: one cannot be deleted.
    """
    files = list_steps(folder_of_run(newest))
    for path in files[files.index(newest) + keep :]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be deleted ({error.strerror})") from error


def keep_best(output_dir: Path, path: Path) -> None:
    """Make best.pt a copy of the checkpoint at `path`."""
    best = best_path(output_dir)
    with replacing(best) as temporary:
        shutil.copyfile(path, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


def newest_checkpoint() -> Path:
    """The checkpoint written last in any run."""
    steps = [path for run in RUNS.glob("*/") for path in list_steps(run)]
    found = sorted(steps, key=lambda path: (path.stat().st_mtime, path))
    if not found:
        raise UserError(
            f"no checkpoint under {RUNS}/: train one with `python train.py --config demo.yaml`, "
            "or give --checkpoint"
        )
    return found[-1]
