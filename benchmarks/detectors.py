"""The noise of a detector: what it says of frames that are the same but for what should not count.

    moved   the window that is cut out of each frame lies (3, 2) pixels elsewhere: AKD should be 2.5
    noise   Gaussian, sigma 2 of 255
    mp4     written as video by VideoWriter, against lossless

Windows are 16 pixels smaller than the frames of the clips, and 64 x 64 in frames shrunk to 70. Each
number is the mean over the frames of a clip; `sd` is the deviation over frames of the one before.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.tables import markdown_table
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.errors import UserError
from media.frames import Frame
from media.video import open_clip
from media.video_writer import VideoWriter
from metrics.detectors.build import DETECTORS, build_detector
from metrics.detectors.detector import Detector, IdentityEncoder, LandmarkDetector
from metrics.identity import aed, aed_squared
from metrics.keypoints import akd

MOVE = (3, 2)  # x, y in pixels
SIGMA = 2.0  # of 255
MARGIN, SHRUNK, SMALL_MARGIN = 8, 70, 3  # around the windows; side of the small frames

Found = dict[str, torch.Tensor]  # landmarks, embeddings; whichever the detector finds
Row = dict[str, str | float | None]


def main(arguments: argparse.Namespace) -> None:
    detector = build_detector(arguments.detector, pick_device(arguments.device))
    rows: list[Row] = []
    for path in map(Path, arguments.clips):
        frames = list(open_clip(path))
        small = [
            np.asarray(Image.fromarray(f).resize((SHRUNK, SHRUNK), Image.Resampling.BOX))
            for f in frames
        ]
        for base, margin in ((frames, MARGIN), (small, SMALL_MARGIN)):
            rows += measure(detector, path.stem, base, margin, arguments.every)
    print(markdown_table(rows))
    print(f"\n{detector.description}")


def measure(
    detector: Detector, name: str, frames: Sequence[Frame], margin: int, every: int
) -> list[Row]:
    """A row for each change of the windows `margin` pixels inside of `frames`."""
    if min(frames[0].shape[:2]) < 4 * margin:
        raise UserError(f"{name}: frames of {frames[0].shape[:2]} pixels are too small")
    windows = [window(frame, margin) for frame in frames]
    plain = find(detector, windows[::every])
    rng = np.random.default_rng(0)

    def noisy(frame: Frame) -> Frame:
        return (frame + rng.normal(0, SIGMA, frame.shape)).round().clip(0, 255).astype(np.uint8)

    changes: dict[str, Callable[[], list[Frame]]] = {
        "same": lambda: windows[::every],
        "moved": lambda: [window(frame, margin, MOVE) for frame in frames[::every]],
        "noise": lambda: [noisy(frame) for frame in windows[::every]],
        "mp4": lambda: coded(windows)[::every],
    }
    size = f"{windows[0].shape[1]} x {windows[0].shape[0]}"
    return [
        {"clip": name, "size": size, "change": change, **compare(find(detector, make()), plain)}
        for change, make in changes.items()
    ]


def window(frame: Frame, margin: int, move: tuple[int, int] = (0, 0)) -> Frame:
    """What lies `margin` pixels inside of `frame`; its contents moved by (x, y)."""
    height, width = frame.shape[:2]
    x, y = move
    return np.ascontiguousarray(
        frame[margin - y : height - margin - y, margin - x : width - margin - x]
    )


def coded(frames: Sequence[Frame]) -> list[Frame]:
    """Written to an mp4 and read again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coded.mp4"
        with VideoWriter(path, Fraction(25)) as writer:
            for frame in frames:
                writer.write(frame)
        return list(open_clip(path))


def find(detector: Detector, frames: Sequence[Frame]) -> Found:
    """N x K x 2 and N x D; NaN where nothing was found."""
    found: Found = {}
    if isinstance(detector, LandmarkDetector):
        found["landmarks"] = torch.from_numpy(np.stack([*map(detector.landmarks, frames)]))
    if isinstance(detector, IdentityEncoder):
        found["embeddings"] = torch.from_numpy(np.stack([*map(detector.embedding, frames)]))
    return found


def compare(changed: Found, plain: Found) -> Row:
    """Means over the frames."""
    row: Row = {}
    if "landmarks" in plain:
        distances = akd(changed["landmarks"], plain["landmarks"])
        distances = distances[~distances.isnan()]
        row["frames"] = str(len(distances))
        row["akd"], row["sd"] = float(distances.mean()), float(distances.std())
    if "embeddings" in plain:
        row["aed"] = float(aed(changed["embeddings"], plain["embeddings"]).nanmean())
        row["aed_squared"] = float(
            aed_squared(changed["embeddings"], plain["embeddings"]).nanmean()
        )
    return row


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="one face or body, filling it")
    parser.add_argument("--detector", choices=DETECTORS, default="dlib")
    parser.add_argument(
        "--every", type=positive_int, default=3, help="take each third frame (default: 3)"
    )
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
