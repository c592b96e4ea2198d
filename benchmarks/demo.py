"""The demo: train, evaluate and animate on synthetic puppets; the results are in runs/demo.

If it is run again, it continues where it was stopped, and makes only results that are missing or
older than the newest checkpoint. Remove runs/demo to start over.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints import checkpoint
from checkpoints.folder import list_steps
from common.files import replacing
from common.json_files import JsonError, read_json
from evaluation.reconstruction import spread
from media.images import write_image
from media.video import open_clip
from media.visualization import titled_grid

RUN = Path("runs/demo")
METRICS = "reconstruction/test/metrics.json"
TRUTH = RUN / "puppets.json"  # metrics against the rendered truth
NUM_ROWS = 6  # frames of the animation on the contact sheet
HEADLINES = (  # metrics that the summary takes from TRUTH
    *("mask_iou", "mask_iou_all_white", "swap_gain_db", "swap_figure_gain_db"),
    *("another_swap_gain_db", "another_swap_figure_gain_db"),
)
# Pictures side by side in the animation: with a background branch that has learned, and without.
COLUMNS = ("source", "driving", "animation", "third image", "BGBase", "BGRefine")
FEWER_COLUMNS = ("source", "driving", "result")


def main() -> None:
    run("train.py", "--config", "demo.yaml", "--resume")
    newest = list_steps(RUN)[0]
    metrics, animation, sheet = RUN / METRICS, RUN / "animation.mp4", RUN / "animation.png"
    if is_old(metrics, newest):
        run("reconstruct.py", "--checkpoint", str(newest))
    if is_old(TRUTH, newest):
        run("-m", "benchmarks.puppets", "--checkpoint", str(newest), "--output", str(TRUTH))
    if is_old(animation, newest):
        run("animate.py", "--checkpoint", str(newest), "--output", str(animation))
    write_image(sheet, contact_sheet(animation))
    summary = summarize(newest)
    with replacing(RUN / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
    print(describe(summary))
    print(
        f"animation       {animation}\n"
        f"contact sheet   {sheet}\n"
        f"reconstruction  {metrics.with_name('index.html')}\n"
        f"while training  {RUN / 'pictures'}\n"
        f"figures         {RUN / 'summary.json'}, {TRUTH}\n"
        f"curves          tensorboard --logdir {RUN}"
    )


def is_old(result: Path, newest: Path) -> bool:
    """Whether `result` must be made: it is missing or damaged, or was made from another checkpoint
    than `newest` or by an earlier version of this program.
    """
    if not result.exists() or result.stat().st_mtime < newest.stat().st_mtime:
        return True
    if result.suffix == ".json":
        try:
            found = read_json(result)
        except JsonError:
            return True
        if not isinstance(found, dict) or "left_out" not in found:
            return True
        if found.get("checkpoint") != str(newest):
            return True
    print(f"{result}: was made from the newest checkpoint already")
    return False


def run(script: str, *arguments: str) -> None:
    """Print the command and run it as a user would; if it fails, exit with its code."""
    print("$", shlex.join(["python", script, *arguments]), flush=True)
    process = subprocess.Popen([sys.executable, script, *arguments])
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:  # Ctrl-C also reaches the script, which saves and ends
            continue
    if code:
        sys.exit(code)


def contact_sheet(animation: Path) -> np.ndarray:
    """Draw some frames of the animation, which has three or six columns, below each other."""
    clip = open_clip(animation)
    frames = torch.from_numpy(clip.read(spread(clip.num_frames, NUM_ROWS)))
    height, width = clip.size
    titles = COLUMNS if width == len(COLUMNS) * height else FEWER_COLUMNS
    columns = (frames.movedim(-1, 1).float() / 255).chunk(len(titles), dim=-1)
    return titled_grid(dict(zip(titles, columns, strict=True)))


def summarize(newest: Path) -> dict[str, Any]:
    """Collect the metrics of the reconstruction with their ratios to the baseline, the metrics
    against the rendered truth, and steps and minutes of the training.
    """
    metrics = json.loads((RUN / METRICS).read_text())
    truth = json.loads(TRUTH.read_text())
    saved = checkpoint.load(newest)
    means = {name: found["over_frames"]["mean"] for name, found in metrics["metrics"].items()}
    return means | {
        "l1_ratio": means["l1"] / means["baseline_l1"],
        "figure_l1_ratio": means["figure_l1"] / means["baseline_figure_l1"],
        **{name: truth[name] for name in HEADLINES if name in truth},
        "left_out": truth["left_out"],
        "num_clips": metrics["num_clips"],
        "num_frames": metrics["num_frames"],
        "steps": saved.step,
        "train_minutes": saved.training["seconds"] / 60,
    }


def describe(summary: Mapping[str, Any]) -> str:
    """Put the summary in words; parts of the model that have not started are left out."""
    lines = [
        f"\n{summary['steps']} steps in {summary['train_minutes']:.1f} minutes",
        f"L1 on unseen puppets: {summary['l1']:.4f}, {summary['l1_ratio']:.2f} of repeating the "
        f"source; on the figure: {summary['figure_l1']:.4f}, {summary['figure_l1_ratio']:.2f}",
        f"overlap of the masks with the figure: {summary['mask_iou']:.2f} (all white: "
        f"{summary['mask_iou_all_white']:.2f})",
    ]
    if "swap_gain_db" in summary:
        lines.append(
            f"background swap: {summary['swap_gain_db']:.1f} dB nearer to the new background than "
            f"to the old one; figure: {summary['swap_figure_gain_db']:.1f} dB better than no figure"
        )
    if summary["left_out"]:
        lines.append(f"not measured, since not started: {', '.join(summary['left_out'])}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
