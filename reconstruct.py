"""Evaluate a model: reconstruct test clips, each from its first frame, and measure the result."""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

import checkpoint
from animation.movers import ANIMATORS, Mover, load_model, reconstruction_movers
from cli import add_device_argument, pick_device, positive_int, run_entry_point
from datasets.build import build_source, preflight
from datasets.source import ClipSource
from datasets.video_writer import VideoWriter
from errors import UserError
from evaluation.reconstruction import FrameMetrics, mean_metrics, reconstruct_clip
from files import replacing
from visualization import to_uint8


def main(arguments: argparse.Namespace) -> None:
    path = Path(arguments.checkpoint)
    device = pick_device(arguments.device)
    saved = checkpoint.load(path)
    movers = reconstruction_movers(load_model(saved, device), device)
    name = arguments.animator or next(iter(movers))
    if name not in movers:
        raise UserError(
            f"--animator {name}: {path} was trained without the branch {name}; it has: "
            f"{', '.join(movers)}"
        )
    mover = movers[name]
    data = saved.config.data.model_copy(update={"id_sampling": False})  # every clip counts
    if arguments.data_root is not None:
        data = data.model_copy(update={"kind": "clips", "root": arguments.data_root})
    clips = build_source(data, arguments.split)
    print(preflight(clips, max_unreadable=0))
    # The default animator's folder has no suffix, so that it does not move with the config.
    folder = arguments.split + (f"-{name}" if arguments.animator else "")
    default_output = checkpoint.run_folder(path) / "reconstruction" / folder
    output = Path(arguments.output or default_output)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: is a file; give a folder")

    collected: list[FrameMetrics] = []
    rows: list[dict[str, str | float]] = []
    for index, clip in enumerate(tqdm(clips.clips, unit="clip", disable=None)):
        metrics = reconstruct_to_video(
            mover, clips, index, output / "clips" / f"{clip.name}.mp4", arguments.batch_size
        )
        collected += metrics
        num_frames = sum(len(batch["l1"]) for batch in metrics)
        rows.append({"clip": clip.name, "num_frames": num_frames, **mean_metrics(metrics)})

    means = mean_metrics(collected)
    summary = {
        "checkpoint": str(path),
        "step": saved.step,
        "data": data.root if data.kind == "clips" else data.kind,
        "split": arguments.split,
        "animator": name,
        "image_size": list(data.size),
        "num_clips": len(rows),
        "num_frames": sum(len(metrics["l1"]) for metrics in collected),
        **means,
    }
    with replacing(output / "metrics.csv") as temporary, temporary.open("w") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with replacing(output / "metrics.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
    print_table(means)
    print(f"{output}: metrics.json, metrics.csv, clips/ (source, driving, prediction)")


def reconstruct_to_video(
    mover: Mover, clips: ClipSource, index: int, path: Path, batch_size: int
) -> list[FrameMetrics]:
    """Reconstruct a clip, write source, driving frame and prediction side by side to `path`."""
    source = clips.read(index, [0])[0]
    collected = []
    with VideoWriter(path, clips.frame_rate(index)) as video:
        for batch in reconstruct_clip(mover, clips, index, batch_size=batch_size):
            for driving, prediction in zip(batch.driving, to_uint8(batch.prediction), strict=True):
                video.write(np.concatenate((source, driving, prediction), axis=1))
            collected.append(batch.metrics)
    return collected


def print_table(means: dict[str, float]) -> None:
    """The model's metrics beside those of repeating the source frame."""
    print(f"{'':12}{'model':>10}{'repeat source':>16}")
    for name, value in means.items():
        if not name.startswith("baseline_"):
            print(f"{name:12}{value:10.4f}{means[f'baseline_{name}']:16.4f}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reconstruct.py", description=__doc__)
    parser.add_argument("--checkpoint", required=True, metavar="PATH")
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder of clips; default: the data of the training"
    )
    parser.add_argument(
        "--animator",
        choices=ANIMATORS,
        help="who moves the source; default: motion, where the checkpoint has it",
    )
    parser.add_argument("--split", default="test", help="train or test (default)")
    parser.add_argument("--output", metavar="DIR", help="default: in the run's folder")
    parser.add_argument("--batch-size", type=positive_int, default=8, help="frames at a time")
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
