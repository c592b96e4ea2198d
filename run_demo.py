"""The whole path in one go, on synthetic puppets: train, reconstruct, animate; see runs/demo.

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
from evaluation import spread
from files import replacing
from visualization import titled_grid

RUN = Path("runs/demo")
NUM_ROWS = 6  # moments of the animation on the contact sheet


def main() -> None:
    run("train.py", "--config", "demo.yaml", "--resume")
    newest = checkpoint.list_steps(RUN)[0]
    run("reconstruct.py", "--checkpoint", str(newest))
    animation, sheet = RUN / "animation.mp4", RUN / "animation.png"
    run(
        *("animate.py", "--checkpoint", str(newest)),
        *("--layout", "side-by-side", "--output", str(animation)),
    )
    write_image(sheet, contact_sheet(animation))
    summary = summarize(newest)
    with replacing(RUN / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
    print(
        f"\nL1 on unseen puppets: {summary['l1']:.4f}, {summary['l1_ratio']:.2f} of repeating the "
        f"source; on the figure: {summary['figure_l1']:.4f}, {summary['figure_l1_ratio']:.2f}\n"
        f"animation       {animation}\n"
        f"contact sheet   {sheet}\n"
        f"reconstruction  {RUN / 'reconstruction/test/clips'}\n"
        f"while training  {RUN / 'pictures'}\n"
        f"figures         {RUN / 'summary.json'}\n"
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
    """Some moments of a side-by-side animation below each other."""
    clip = open_clip(animation)
    frames = torch.from_numpy(clip.read(spread(clip.num_frames, NUM_ROWS)))
    columns = (frames.movedim(-1, 1).float() / 255).chunk(3, dim=-1)
    return titled_grid(dict(zip(("source", "driving", "animation"), columns, strict=True)))


def summarize(newest: Path) -> dict[str, float]:
    """The figures of the reconstruction, the ratios to the baseline, and what training took."""
    metrics = json.loads((RUN / "reconstruction/test/metrics.json").read_text())
    saved = checkpoint.load(newest)
    means = {name: value for name, value in metrics.items() if isinstance(value, float)}
    return means | {
        "l1_ratio": metrics["l1"] / metrics["baseline_l1"],
        "figure_l1_ratio": metrics["figure_l1"] / metrics["baseline_figure_l1"],
        "num_clips": metrics["num_clips"],
        "num_frames": metrics["num_frames"],
        "steps": saved.step,
        "train_minutes": saved.training["seconds"] / 60,
    }


if __name__ == "__main__":
    main()
