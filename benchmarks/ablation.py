"""Train and compare discriminators and motion models: one run for each row and seed, with the same
steps and data.

    python -m benchmarks.ablation --config demo.yaml --steps 2000 [key.sub=value ...]

With --init-from, every run continues from the weights of one base: so the discriminators are
compared at a generator that is already good.

The rows are in benchmarks/ablation_rows.py. Those of FOMM change only the config's discriminator:
its kind, and its cut, that is, how real and generated images are mixed for it. The patch
discriminator of the row fomm-adv has widths for small images, and is otherwise that of
vox-fomm-adv.yaml. The others (--rows) have another motion model, small too, or FOMM with the
keypoint prior, the heatmap start and the skip connection of demo.yaml. Runs of one seed get
the same batches and, with the same networks, start with the same weights. Each run has the folder
OUTPUT/<row>-<seed>. If the command is repeated, it continues an interrupted run, skips finished
ones, and adds further rows and seeds. A run that fails is reported; the others go on.

The motion branch, with its averaged weights if there are any, then reconstructs every test clip
from its first frame, which is one of the measured frames. PSNRs are in dB, at most 100 for a frame.

    l1, psnr, ssim          over the whole frame
    figure_l1, figure_psnr  over the pixels of the foreground
    hidden_l1, hidden_psnr  over the pixels that the source does not show: background behind its
                            figure, and parts of the figure behind others (puppets alone)
    ssim_masked             SSIM over the whole frame, of both images multiplied by the foreground;
                            the papers measure salient regions in this way

The foreground is where the true figure is in the source or in the driving frame. If the true figure
is not known, the foreground is where the real frames move: pixels that differ from the source frame
by more than 0.1 in a colour channel. Frames without foreground are left out of its metrics.

Numbers are means over the frames of a clip, then over clips. `±` is the standard deviation over
seeds. [low, high] is a 95% t interval over clips, each averaged over seeds. Differences to fomm are
paired by seed and clip. An interval that contains 0 shows no difference on these clips; the ±
beside it tells how much results vary between seeds. `source` is the baseline that repeats the
source frame.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Final, NamedTuple

import torch

import train
from animation.branch_animators import (
    reconstruction_animators,
)
from benchmarks.ablation_report import compare, detailed_tables, means_table, summarize_baseline
from benchmarks.ablation_rows import OF_THE_PAPER, ROWS, row_overrides
from benchmarks.ablation_scores import ClipScores, describe_foreground, metrics_of, score_clips
from checkpoints import checkpoint
from checkpoints.folder import step_path
from checkpoints.weights import load_model
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point, say
from common.errors import UserError
from common.files import check_folder_name, file_sha256, replacing
from common.json_files import read_json
from common.safe_paths import exists, printable
from common.tensor_files import read_facts
from configs.loading import load_config, parse_config
from configs.schema import Config
from datasets.build import build_source
from datasets.source import ClipSource
from training.run_folder import RUN_FILE, read_record

BASE_FILE: Final = "init_from.json"  # in the output folder: SHA-256 of each file of --init-from
REPORT_FILE: Final = "ablation.json"  # in the folder of each run, and for all in the output folder
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Run(NamedTuple):
    """One run: a row with a seed.

    overrides: overrides of the config that make this run.
    config: the config after these overrides.
    """

    row: str
    seed: int
    folder: Path
    overrides: list[str]
    config: Config

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint of the last step, which a finished run has."""
        assert self.config.train.max_steps is not None, "plan_run sets it"
        return step_path(self.folder, self.config.train.max_steps)


def main(arguments: argparse.Namespace) -> int | None:
    if arguments.config is None:
        raise UserError("--config is missing: give a file, or a name such as demo.yaml")
    if arguments.steps is None:
        raise UserError("--steps is missing: give the number of steps of every run")
    for row in arguments.rows:
        if row not in ROWS:
            raise UserError(f"--rows {row}: unknown; known rows: {', '.join(ROWS)}")
    output, device = Path(arguments.output), pick_device(arguments.device)
    runs = [
        plan_run(arguments.config, arguments.overrides, row, seed, arguments.steps, output)
        for seed in dict.fromkeys(arguments.seeds)  # first all rows of one seed, then the next seed
        for row in dict.fromkeys(arguments.rows)
    ]
    check_folder_name(output)
    for run in runs:
        check_folder(run)
    clips = build_source(runs[0].config.data, "test")
    check_base(output, arguments.init_from)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    failed = []
    for position, run in enumerate(runs, start=1):
        say(f"{run.folder} ({position} of {len(runs)})")
        try:
            code = train_run(arguments.config, run, arguments.init_from, arguments.device)
            if code:  # a signal has ended the run
                return code
            found[run.row, run.seed] = measure_run(run, clips, arguments.num_frames, device)
        except UserError as error:
            failed.append(str(run.folder))
            say(f"{run.folder}: {error}", sys.stderr)
            continue
        report = {
            "config": arguments.config,
            "overrides": arguments.overrides,
            "init_from": arguments.init_from,
            "steps": arguments.steps,
            "num_frames": arguments.num_frames,
            "foreground": describe_foreground(clips),
            "clips": [clip.name for clip in clips.clips],
            "rows": compare(found, ROWS),
            "baseline": summarize_baseline(found),
        }
        with replacing(output / REPORT_FILE) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")
    if found:
        print(f"\n{means_table(report)}")
        if arguments.markdown:
            print(f"\n{detailed_tables(report)}")
        print(f"\nforeground: {report['foreground']}\n{printable(str(output / REPORT_FILE))}")
    if failed:
        raise UserError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; see above")
    return None


def plan_run(
    config: str, overrides: Sequence[str], row: str, seed: int, num_steps: int, output: Path
) -> Run:
    """Make the run of a row and a seed.

    Raises:
        UserError: the config cannot be used.
    """
    folder = output / f"{row}-{seed}"
    all_overrides = [
        f"log.validate_every={num_steps}",  # only at the end, unless `overrides` says otherwise
        *overrides,
        *row_overrides(config, overrides, row),
        f"seed={seed}",
        f"run.output_dir={json.dumps(str(folder), ensure_ascii=False)}",  # text in YAML
        f"train.max_steps={num_steps}",
        "train.max_minutes=null",
    ]
    # The run must end by its steps, not by its epochs, each of which has at least one step.
    num_epochs = max(num_steps, load_config(config, all_overrides).train.epochs)
    all_overrides.append(f"train.epochs={num_epochs}")
    return Run(row, seed, folder, all_overrides, load_config(config, all_overrides))


def check_folder(run: Run) -> None:
    """Check that the folder of `run` does not hold a run of another config, or the checkpoint of
    another run where that of the last step would be.

    Raises:
        UserError: it does; names the keys that differ.
    """
    path = run.folder / "config.yaml"
    if exists(path):
        _check_config(path, load_config(str(path)), run)
    path = run.last_checkpoint
    facts = read_facts(path) if exists(path) else {}
    if "config" not in facts:  # there is none, or it is damaged, which its reader tells
        return
    _check_config(path, parse_config(facts["config"], origin=str(path)), run)
    record = read_record(run.folder)
    run_id = None if record is None else record.run_id
    is_own = facts.get("run_id") in (None, run_id)  # earlier versions stored none
    if facts.get("step") != run.config.train.max_steps or not is_own:
        raise UserError(
            f"{path}: a checkpoint of another step or run than that of {run.folder}; move it away, "
            "or choose another folder with --output"
        )


def _check_config(path: Path, found: Config, run: Run) -> None:
    """Raise UserError if `found`, which was read from `path`, is another config than that of `run`,
    other than in its section run.
    """
    asked = run.config.model_dump(exclude={"run"})
    different = _differences(found.model_dump(exclude={"run"}), asked)
    if different:
        raise UserError(
            f"{path}: another config than asked for: {'; '.join(different[:3])}; choose another "
            "folder with --output"
        )


def check_base(output: Path, init_from: Sequence[str]) -> None:
    """Check that earlier runs in `output` started from the same weights, and note which these are.

    Raises:
        UserError: they did not, a file cannot be read, or one is there that this program would
            replace and did not write.
    """
    path, report = output / BASE_FILE, output / REPORT_FILE
    try:
        asked = {name: file_sha256(Path(name)) for name in init_from}
    except OSError as error:
        raise UserError(
            f"--init-from {error.filename}: cannot be read ({error.strerror})"
        ) from None
    has_runs = any(output.glob(f"*/{RUN_FILE}"))
    noted = _read_own(path, _is_note)
    reported = _read_own(report, _is_report)
    is_same = True
    if noted is not None:
        is_same = [*noted.values()] == [*asked.values()]
    elif has_runs and reported is not None:  # of a version that noted nothing else
        path = report
        is_same = reported.get("init_from", []) == [*init_from]
    if has_runs and not is_same:
        raise UserError(
            f"{path}: the runs here started from other weights than --init-from asks for; choose "
            "another folder with --output"
        )
    with replacing(output / BASE_FILE) as temporary:
        temporary.write_text(json.dumps(asked, indent=2) + "\n")


def _read_own(path: Path, is_own: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """Read a JSON file of this program in the output folder; None if there is none.

    Raises:
        UserError: the file cannot be read, or somebody else wrote it.
    """
    if not exists(path):
        return None
    try:
        found = read_json(path)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not is_own(found):
        raise UserError(
            f"{path}: not as this program wrote it; choose another folder with --output"
        )
    return found


def _is_note(found: dict[str, Any]) -> bool:
    return all(isinstance(value, str) and _SHA256.fullmatch(value) for value in found.values())


def _is_report(found: dict[str, Any]) -> bool:
    return found.keys() >= {"rows", "baseline"}


def train_run(config: str, run: Run, init_from: Sequence[str], device: str) -> int | None:
    """Train `run` to its last step, as train.py does; does nothing if it is finished.

    Args:
        init_from: files whose weights a new run starts from.

    Returns:
        The exit code of train.py: None, or 128 plus the number of the signal that ended it.
    """
    if exists(run.last_checkpoint):
        return None
    arguments = ["--config", config, *run.overrides, "--resume", "auto", "--device", device]
    arguments += [part for path in init_from for part in ("--init-from", path)]
    return train.main(train.build_parser().parse_args(arguments))


def measure_run(
    run: Run, clips: ClipSource, num_frames: int, device: torch.device
) -> dict[str, Any]:
    """Measure the last checkpoint of `run`, unless its folder already has the report.

    Returns:
        A report with the `scores` of the checkpoint and those of the `baseline`, by metric.
    """
    path = run.folder / REPORT_FILE
    record = read_record(run.folder)
    # A report without these is of an earlier version; it may be of a run that was here before.
    asked = {
        "run_id": None if record is None else record.run_id,
        "clips": [clip.name for clip in clips.clips],
        "num_frames": num_frames,
    }
    if exists(path):
        try:
            found = read_json(path)
            scores, baseline = dict(found["scores"]), dict(found["baseline"])
            is_current = [*baseline] == [*metrics_of(clips)] and found == found | asked
            if is_current:
                _check_scores(scores, baseline, len(clips.clips))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path}: not as this program wrote it; remove it, and the run is measured anew"
            ) from None
        if is_current:
            return found | {"scores": scores, "baseline": baseline}
    model = load_model(checkpoint.load(run.last_checkpoint), device)
    animator = reconstruction_animators(model, device)["motion"]
    scores, baseline = score_clips(animator, clips, num_frames)
    report = {
        "checkpoint": str(run.last_checkpoint),
        **asked,
        "scores": scores,
        "baseline": baseline,
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    return report


def _check_scores(scores: ClipScores, baseline: ClipScores, num_clips: int) -> None:
    """Raise ValueError if the scores are not a number, or None, for each metric and clip."""
    for of_clips in (*scores.values(), *baseline.values()):
        is_complete = isinstance(of_clips, list) and len(of_clips) == num_clips
        if not is_complete or not all(type(score) in (int, float, NoneType) for score in of_clips):
            raise ValueError
    if scores.keys() != baseline.keys():
        raise ValueError


def _differences(before: Any, now: Any, key: str = "") -> list[str]:
    """The dotted keys where two configs differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
        return [
            line
            for name in before
            for line in _differences(before[name], now[name], f"{key}.{name}".lstrip("."))
        ]
    return [] if before == now else [f"{key}: found {before}, asked for {now}"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="a YAML file, or the name of one in configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="change keys of the config"
    )
    parser.add_argument(
        "--steps", type=positive_int, help="steps of every run; replaces limits of time"
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        default=list(OF_THE_PAPER),
        help=f"some of: {', '.join(ROWS)}; prioritycut-masks needs the section masks; default: "
        f"{', '.join(OF_THE_PAPER)}",
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2", metavar="SEED"
    )
    parser.add_argument(
        "--init-from",
        action="append",
        default=[],
        metavar="PATH",
        help="every run starts from the weights in this checkpoint or export, instead of random "
        "ones; can be given several times",
    )
    parser.add_argument("--output", default="runs/ablation", help="default: runs/ablation")
    parser.add_argument(
        "--num-frames",
        type=positive_int,
        default=24,
        help="frames of each test clip that are measured, evenly spread (default: 24)",
    )
    parser.add_argument(
        "--markdown", action="store_true", help="also print standard deviations and intervals"
    )
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
