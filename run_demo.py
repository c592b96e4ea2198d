"""The whole path in one go, on synthetic puppets: train, evaluate, swap; see runs/demo.

Run again, it continues where it stopped; remove runs/demo to start over.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import checkpoint
from datasets.images import write_image
from datasets.video import open_clip
from evaluation.reconstruction import spread
from files import replacing
from visualization import titled_grid

RUN = Path("runs/demo")
TRUTH = RUN / "puppets.json"  # measured against the rendered truth
NUM_ROWS = 6  # moments of the animation on the contact sheet
HEADLINES = (
    *("mask_iou", "mask_iou_all_white", "swap_gain_db", "swap_figure_gain_db"),
    *("another_swap_gain_db", "another_swap_figure_gain_db"),
)
COLUMNS = ("source", "driving", "animation", "third image", "BGBase", "BGRefine")


def main() -> None:
    run("train.py", "--config", "demo.yaml", "--resume")
    newest = checkpoint.list_steps(RUN)[0]
    run("reconstruct.py", "--checkpoint", str(newest))
    run("-m", "benchmarks.puppets", "--checkpoint", str(newest), "--output", str(TRUTH))
    animation, sheet = RUN / "animation.mp4", RUN / "animation.png"
    run("animate.py", "--checkpoint", str(newest), "--output", str(animation))
    write_image(sheet, contact_sheet(animation))
    summary = summarize(newest)
    with replacing(RUN / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
    print(
        f"\nL1 on unseen puppets: {summary['l1']:.4f}, {summary['l1_ratio']:.2f} of repeating the "
        f"source; on the figure: {summary['figure_l1']:.4f}, {summary['figure_l1_ratio']:.2f}\n"
        f"overlap of the masks with the figure: {summary['mask_iou']:.2f} (all white: "
        f"{summary['mask_iou_all_white']:.2f})\n"
        f"background swap: {summary['swap_gain_db']:.1f} dB nearer to the new background than to "
        f"the old one; the figure: {summary['swap_figure_gain_db']:.1f} dB better than none\n"
        f"animation       {animation}\n"
        f"contact sheet   {sheet}\n"
        f"reconstruction  {RUN / 'reconstruction/test/index.html'}\n"
        f"while training  {RUN / 'pictures'}\n"
        f"figures         {RUN / 'summary.json'}, {TRUTH}\n"
        f"curves          tensorboard --logdir {RUN}"
    )


def run(script: str, *arguments: str) -> None:
    """Run an entry point as a user would, showing the command; end with its exit code."""
    print("$", shlex.join(["python", script, *arguments]), flush=True)
    process = subprocess.Popen([sys.executable, script, *arguments])
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:  # Ctrl-C reaches the script too, which finishes and saves
            continue
    if code:
        sys.exit(code)


def contact_sheet(animation: Path) -> np.ndarray:
    """Some moments of the six-column animation below each other."""
    clip = open_clip(animation)
    frames = torch.from_numpy(clip.read(spread(clip.num_frames, NUM_ROWS)))
    columns = (frames.movedim(-1, 1).float() / 255).chunk(len(COLUMNS), dim=-1)
    return titled_grid(dict(zip(COLUMNS, columns, strict=True)))


def summarize(newest: Path) -> dict[str, float]:
    """The figures of the reconstruction with their ratios to the baseline, those against the
    rendered truth, and what training took.
    """
    metrics = json.loads((RUN / "reconstruction/test/metrics.json").read_text())
    truth = json.loads(TRUTH.read_text())
    saved = checkpoint.load(newest)
    means = {name: found["over_frames"]["mean"] for name, found in metrics["metrics"].items()}
    return means | {
        "l1_ratio": means["l1"] / means["baseline_l1"],
        "figure_l1_ratio": means["figure_l1"] / means["baseline_figure_l1"],
        **{name: truth[name] for name in HEADLINES},
        "num_clips": metrics["num_clips"],
        "num_frames": metrics["num_frames"],
        "steps": saved.step,
        "train_minutes": saved.training["seconds"] / 60,
    }


if __name__ == "__main__":
    main()
