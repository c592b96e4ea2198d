"""Measure the noise of a detector: how much its output changes between frames that show the same.

    same    the same frames again
    moved   the window that is cut out of each frame is moved by (3, 2) pixels: AKD should be 2.5
    noise   Gaussian noise with a sigma of 2 (of 255) is added
    mp4     the frames are written as a video by VideoWriter and read again

Windows are 16 pixels smaller than the frames of the clips; in frames that are shrunk to 70 x 70
they are 64 x 64. Each number is the mean over the frames of a clip; `sd` is the standard deviation
of `akd` over frames.
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
from metrics.identity import aed, aed_squared, csim
from metrics.keypoints import akd

MOVE = (3, 2)  # x, y in pixels
SIGMA = 2.0  # of 255
MARGIN, SMALL_MARGIN = 8, 3  # pixels around the window in a frame, and in a shrunk frame
SHRUNK = 70  # side of a shrunk frame in pixels

Detections = dict[str, torch.Tensor]  # "landmarks" and "embeddings", or what the detector has
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
    """Measure each change of the windows that lie `margin` pixels inside of `frames`.

    Args:
        every: only every so many frames are given to the detector.

    Returns:
        A row of the table for each change.
    """
    if min(frames[0].shape[:2]) < 4 * margin:
        raise UserError(f"{name}: frames of {frames[0].shape[:2]} pixels are too small")
    windows = [window(frame, margin) for frame in frames]
    plain = detect(detector, windows[::every])
    rng = np.random.default_rng(0)

    def noisy(frame: Frame) -> Frame:
        return (frame + rng.normal(0, SIGMA, frame.shape)).round().clip(0, 255).astype(np.uint8)

    changes: dict[str, Callable[[], list[Frame]]] = {
        "same": lambda: windows[::every],
        "moved": lambda: [window(frame, margin, MOVE) for frame in frames[::every]],
        "noise": lambda: [noisy(frame) for frame in windows[::every]],
        "mp4": lambda: through_mp4(windows)[::every],
    }
    size = f"{windows[0].shape[1]} x {windows[0].shape[0]}"
    return [
        {"clip": name, "size": size, "change": change, **compare(detect(detector, make()), plain)}
        for change, make in changes.items()
    ]


def window(frame: Frame, margin: int, move: tuple[int, int] = (0, 0)) -> Frame:
    """Cut out what lies `margin` pixels inside of `frame`, with its content moved by (x, y)."""
    height, width = frame.shape[:2]
    x, y = move
    return np.ascontiguousarray(
        frame[margin - y : height - margin - y, margin - x : width - margin - x]
    )


def through_mp4(frames: Sequence[Frame]) -> list[Frame]:
    """Write frames to an mp4 and read them again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coded.mp4"
        with VideoWriter(path, Fraction(25)) as writer:
            for frame in frames:
                writer.write(frame)
        return list(open_clip(path))


def detect(detector: Detector, frames: Sequence[Frame]) -> Detections:
    """Landmarks, N x K x 2 in pixels, and embeddings, N x D, of frames; NaN if none was found."""
    found: Detections = {}
    if isinstance(detector, LandmarkDetector):
        found["landmarks"] = torch.from_numpy(np.stack([*map(detector.landmarks, frames)]))
    if isinstance(detector, IdentityEncoder):
        found["embeddings"] = torch.from_numpy(np.stack([*map(detector.embedding, frames)]))
    return found


def compare(changed: Detections, plain: Detections) -> Row:
    """AKD, AED and CSIM between detections in changed and in plain frames, as means over frames."""
    row: Row = {}
    if "landmarks" in plain:
        distances = akd(changed["landmarks"], plain["landmarks"])
        distances = distances[~distances.isnan()]
        row["frames"] = str(len(distances))
        row["akd"], row["sd"] = float(distances.mean()), float(distances.std())
    if "embeddings" in plain:
        for metric in (aed, aed_squared, csim):
            values = metric(changed["embeddings"], plain["embeddings"])
            row[metric.__name__] = float(values.nanmean())
    return row


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "clips", nargs="+", metavar="CLIP", help="clips of one face or body that fills the frame"
    )
    parser.add_argument("--detector", choices=DETECTORS, default="dlib")
    parser.add_argument(
        "--every", type=positive_int, default=3, help="take every Nth frame (default: 3)"
    )
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
