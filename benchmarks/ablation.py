"""Train and compare discriminators: one run for each row and seed, the same steps and data.

    python -m benchmarks.ablation --config demo.yaml --steps 2000 [key.sub=value ...]

A row changes the discriminator of the config alone (`ROWS`): its kind and its cut; the patch
discriminator of fomm-adv has widths for small images, and is else that of vox-fomm-adv.yaml. Runs
of one seed see the same batches and begin with the same weights. Each lies in OUTPUT/<row>-<seed>:
called again, the command continues where it was interrupted, trains no run twice, and takes in
further rows and seeds. A run that fails is reported and the others go on.

The motion branch (averaged weights, where there are) then reconstructs every test clip from its
first frame, which is one of the frames measured. PSNRs are in dB, at most 100 for one frame.

    l1, psnr, ssim          over the whole frame
    figure_l1, figure_psnr  over the pixels of the foreground
    ssim_masked             both images multiplied by the foreground, then SSIM over the whole
                            frame, as the papers do for what is salient

The foreground is the true figure, in the source or in the driving frame; of clips that do not know
it, where the clip moves: pixels whose colour differs from the source frame's by more than 0.1 in a
channel, by the real frames alone. Frames without foreground are left out there.

Numbers are means over the frames of a clip, then over clips. `±` is the standard deviation over
seeds, [low, high] a 95% t interval over clips, each averaged over seeds. Differences to fomm are
paired by seed and clip: where the interval holds 0, no difference is shown on these clips; what
chance in training does, the ± beside it tells. `source` repeats the source frame.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

import train
from animation.branch_animators import (
    reconstruction_animators,
)
from benchmarks.ablation_report import compare, detailed_tables, means_table, summarize_baseline
from benchmarks.ablation_scores import describe_foreground, score_clips
from checkpoints import checkpoint
from checkpoints.folder import step_path
from checkpoints.weights import load_model
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.errors import UserError
from common.files import replacing
from configs.loading import load_config
from configs.schema import Config
from datasets.build import build_source
from datasets.source import ClipSource

ROWS: Final[dict[str, tuple[str, ...]]] = {
    "fomm": ("discriminator=null",),
    "fomm-adv": (
        "discriminator.kind=patch",
        "discriminator.channels=[16, 32, 64]",  # a U-Net's are too many for small images
        "discriminator.spectral_norm=false",
        "discriminator.keypoints=true",
        "discriminator.cut.kind=none",
    ),
    "unet": ("discriminator.kind=unet", "discriminator.cut.kind=none"),
    "cutmix": ("discriminator.kind=unet", "discriminator.cut.kind=rectangle"),
    "prioritycut": (
        "discriminator.kind=unet",
        "discriminator.cut.kind=priority",
        "discriminator.cut.foreground=dense_motion",
    ),
    "prioritycut-masks": (
        "discriminator.kind=unet",
        "discriminator.cut.kind=priority",
        "discriminator.cut.foreground=mask_generator",
    ),
}
REPORT_FILE: Final = "ablation.json"  # of a run in its folder, of all in the output folder


class Run(NamedTuple):
    """overrides: everything that the config gets on top."""

    row: str
    seed: int
    folder: Path
    overrides: list[str]
    config: Config

    @property
    def last_checkpoint(self) -> Path:
        assert self.config.train.max_steps is not None, "plan sets it"
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
        plan(arguments.config, arguments.overrides, row, seed, arguments.steps, output)
        for seed in dict.fromkeys(arguments.seeds)  # all rows of a seed before the next seed
        for row in dict.fromkeys(arguments.rows)
    ]
    for run in runs:
        check_folder(run)
    clips = build_source(runs[0].config.data, "test")
    found: dict[tuple[str, int], dict[str, Any]] = {}
    failed = []
    for position, run in enumerate(runs, start=1):
        print(f"{run.folder} ({position} of {len(runs)})", flush=True)
        try:
            code = train_run(arguments.config, run, arguments.device)
            if code:  # a signal
                return code
            found[run.row, run.seed] = measured(run, clips, arguments.num_frames, device)
        except UserError as error:
            failed.append(str(run.folder))
            print(f"{run.folder}: {error}", file=sys.stderr)
            continue
        report = {
            "config": arguments.config,
            "overrides": arguments.overrides,
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
        print(f"\nforeground: {report['foreground']}\n{output / REPORT_FILE}")
    if failed:
        raise UserError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; see above")
    return None


def plan(
    config: str, overrides: Sequence[str], row: str, seed: int, num_steps: int, output: Path
) -> Run:
    """The run of a row and a seed.

    Raises:
        UserError: a config that cannot be used.
    """
    folder = output / f"{row}-{seed}"
    every = [
        f"log.validate_every={num_steps}",  # one at the end, unless asked for
        *overrides,
        *row_overrides(config, overrides, row),
        f"seed={seed}",
        f"run.output_dir={json.dumps(str(folder))}",  # text, whatever its name
        f"train.max_steps={num_steps}",
        "train.max_minutes=null",
    ]
    # Steps end the run, not epochs, each of which has at least one step.
    every.append(f"train.epochs={max(num_steps, load_config(config, every).train.epochs)}")
    resolved = load_config(config, every)
    if resolved.motion is None:
        raise UserError("motion: found null; it is the motion branch that the rows train")
    return Run(row, seed, folder, every, resolved)


def row_overrides(config: str, overrides: Sequence[str], row: str) -> list[str]:
    """What makes `row` of the given config. The only head of the patch discriminator gets the
    weight of the U-Net's two together, in the loss of either player.

    Raises:
        UserError: a config that cannot be used.
    """
    changes = list(ROWS[row])
    given = load_config(config, overrides).discriminator
    if "discriminator.kind=patch" in changes and given is not None and given.kind == "unet":
        for section in ("losses", "generator_losses"):
            weights = getattr(given, section)
            changes.append(f"discriminator.{section}.encoder={weights.encoder + weights.decoder}")
    return changes


def check_folder(run: Run) -> None:
    """Refuse to mix runs of different configs.

    Raises:
        UserError: the folder of `run` holds another one.
    """
    path = run.folder / "config.yaml"
    if not path.exists():
        return
    before = load_config(str(path)).model_dump(exclude={"run"})
    different = _differences(before, run.config.model_dump(exclude={"run"}))
    if different:
        raise UserError(
            f"{path}: another config than asked for: {'; '.join(different[:3])}; choose another "
            "folder with --output"
        )


def train_run(config: str, run: Run, device: str) -> int | None:
    """Train to the last step as train.py does; at once where that is done. Its exit code."""
    if run.last_checkpoint.exists():
        return None
    arguments = ["--config", config, *run.overrides, "--resume", "auto", "--device", device]
    return train.main(train.build_parser().parse_args(arguments))


def measured(run: Run, clips: ClipSource, num_frames: int, device: torch.device) -> dict[str, Any]:
    """`scores` of the last checkpoint of `run` and of its `baseline`, measured once."""
    path = run.folder / REPORT_FILE
    if path.exists():
        report = json.loads(path.read_text())
        if report["num_frames"] == num_frames:
            return report
    model = load_model(checkpoint.load(run.last_checkpoint), device)
    animator = reconstruction_animators(model, device)["motion"]
    scores, baseline = score_clips(animator, clips, num_frames)
    report = {
        "checkpoint": str(run.last_checkpoint),
        "num_frames": num_frames,
        "scores": scores,
        "baseline": baseline,
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    return report


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
    parser.add_argument("--steps", type=positive_int, help="of every run; takes the place of time")
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        default=[row for row in ROWS if row != "prioritycut-masks"],
        help=f"of: {', '.join(ROWS)} (needs the section masks); default: all but the last",
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2", metavar="SEED"
    )
    parser.add_argument("--output", default="runs/ablation", help="default: runs/ablation")
    parser.add_argument(
        "--num-frames",
        type=positive_int,
        default=24,
        help="frames of a test clip, spread evenly (default: 24)",
    )
    parser.add_argument("--markdown", action="store_true", help="print spreads and intervals too")
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
