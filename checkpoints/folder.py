"""Lists the checkpoints in a run folder, and keeps the newest ones and the best one."""

import os
import re
import shutil
from pathlib import Path

from common.errors import UserError
from common.files import replacing

RUNS = Path("runs")
# Names of the checkpoints in a run's folder of checkpoints. A step has at least eight digits, and
# at most the 16 of `file_checks.MAX_COUNT`.
WRITTEN = r"(step-\d{8,16}|best)\.pt"
_STEP_FILE = re.compile(r"step-(\d{8,16})\.pt")


def checkpoint_folder(output_dir: Path) -> Path:
    """Path of the folder of checkpoints in the run folder `output_dir`."""
    return output_dir / "checkpoints"


def step_path(output_dir: Path, step: int) -> Path:
    """Path of the checkpoint of `step` in a run folder."""
    return checkpoint_folder(output_dir) / f"step-{step:08d}.pt"


def best_path(output_dir: Path) -> Path:
    """Path of the checkpoint with the lowest validation L1 in a run folder."""
    return checkpoint_folder(output_dir) / "best.pt"


def folder_of_run(path: Path) -> Path:
    """The run folder that the checkpoint `path` lies in, or else the folder that it lies in."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def list_all(output_dir: Path) -> list[Path]:
    """List every checkpoint of a run: those of steps, the newest first, then best.pt.

    Raises:
        UserError: the folder cannot be listed; it must not be taken for an empty one.
    """
    folder = checkpoint_folder(output_dir)
    names = [name for name, is_file in _scan(folder).items() if is_file]
    return [folder / name for name in sorted(names, key=_step_of, reverse=True)]


def _step_of(name: str) -> int:
    """The step in the name of a checkpoint; -1 for best.pt."""
    match = _STEP_FILE.fullmatch(name)
    return -1 if match is None else int(match[1])


def check_names(output_dir: Path) -> None:
    """Make sure that nothing other than a file has the name of a checkpoint.

    Raises:
        UserError: as `list_all`, or a folder or a pipe has such a name; names it.
    """
    folder = checkpoint_folder(output_dir)
    for name, is_file in _scan(folder).items():
        if not is_file:
            raise UserError(
                f"{folder / name}: has the name of a checkpoint, but is no file; move it away"
            )


def _scan(folder: Path) -> dict[str, bool]:
    """Map the entries that have the name of a checkpoint to whether they are files."""
    try:
        with os.scandir(folder) as entries:
            return {e.name: e.is_file() for e in entries if re.fullmatch(WRITTEN, e.name)}
    except FileNotFoundError:
        if folder.is_symlink():
            raise UserError(
                f"{folder}: a link to a folder that does not exist; mount its disk, or remove the "
                "link"
            ) from None
        return {}
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be listed ({error.strerror or error}); repair it, or choose another "
            "folder with run.output_dir=..."
        ) from error


def list_steps(output_dir: Path, after: int = -1) -> list[Path]:
    """List the checkpoints of a run later than step `after`, the newest first.

    Raises:
        UserError: as `list_all`.
    """
    return [path for path in list_all(output_dir) if _step_of(path.name) > after]


def prune(newest: Path, keep: int) -> None:
    """Delete the checkpoints before `newest`, except for the last `keep`, which include `newest`.

    best.pt stays. So does a checkpoint later than `newest`: it was damaged, and skipped when the
    run resumed, and the run will write it again.

    Raises:
        UserError: a file cannot be deleted.
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
    """Find the checkpoint written last in any run under runs/.

    Raises:
        UserError: there is none.
    """
    steps = [path for run in RUNS.glob("*/") for path in list_steps(run)]
    found = sorted(steps, key=lambda path: (path.stat().st_mtime, path))
    if not found:
        raise UserError(
            f"no checkpoint under {RUNS}/: train a model with `python train.py --config "
            "demo.yaml`, or give --checkpoint"
        )
    return found[-1]
