"""Lists the checkpoints in a run folder, and keeps the newest ones and the best one. Chooses the
checkpoint of a program that was given none.
"""

import os
import re
import shutil
from pathlib import Path

from common.errors import UserError
from common.files import replacing
from common.safe_paths import resolve

RUNS = Path("runs")
RESULTS = Path("results")
# The model that comes with the project lies beside the code, wherever a program is started.
OWN_MODEL = Path(__file__).parents[1] / "assets" / "puppets.safetensors"
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
    """The run folder that the checkpoint `path` lies in, or else the folder that it lies in.

    Results of a model that comes with the project go to results/NAME in the working folder, since
    the code may lie where nobody should write.
    """
    if resolve(path.parent) == resolve(OWN_MODEL.parent):
        return RESULTS / path.stem
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def list_all(output_dir: Path) -> list[Path]:
    """List every checkpoint of a run: those of steps, the newest first, then best.pt.

    Raises:
        UserError: the folder cannot be listed; it must not be taken for an empty one.
    """
    folder = checkpoint_folder(output_dir)
    names = [name for name, is_file in _scan(folder).items() if is_file]
    return [folder / name for name in sorted(names, key=step_of, reverse=True)]


def step_of(name: str) -> int:
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
    return [path for path in list_all(output_dir) if step_of(path.name) > after]


def prune(newest: Path, keep: int) -> None:
    """Delete the checkpoints before `newest`, except for the last `keep`, which include `newest`.

    best.pt stays. So does a checkpoint later than `newest`: it was damaged or had the name of
    another, and was skipped when the run resumed, and the run will write it again.

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


def default_checkpoint() -> Path:
    """Choose the checkpoint of a program that was given none.

    It is the newest one under runs/ or, if there is none, the model that comes with the project; a
    line on stdout says so.

    Raises:
        UserError: there is neither, or a folder of checkpoints cannot be listed.
    """
    newest = newest_checkpoint()
    if newest is not None:
        return newest
    advice = "`python train.py --config demo.yaml`"
    if not OWN_MODEL.is_file():
        raise UserError(
            f"no checkpoint under {RUNS}/: train a model with {advice}, or give --checkpoint"
        )
    # Imported here: programs that only list runs start without torch.
    from common.distributed.processes import say_once

    here = Path.cwd()
    path = OWN_MODEL.relative_to(here) if OWN_MODEL.is_relative_to(here) else OWN_MODEL
    say_once(
        f"no checkpoint under {RUNS}/: using {path}, the model that comes with the project; train "
        f"your own with {advice}"
    )
    return path


def newest_checkpoint() -> Path | None:
    """Find the checkpoint written last in any run under runs/; None if there is none.

    Raises:
        UserError: a folder of checkpoints cannot be listed.
    """
    steps = [path for run in RUNS.glob("*/") for path in list_steps(run)]
    found = sorted(steps, key=lambda path: (path.stat().st_mtime, path))
    return found[-1] if found else None
