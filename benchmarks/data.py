"""Measure how fast training pairs are read on one core, for each way to store the same clip.

The clip, a puppet or --clip FILE, has 256 x 256 pixels. It is stored as mp4 (H.264, CRF 23, 4:2:0)
with a key frame every 250 frames, every 12 frames, and in every frame. The decoded frames of the
first of these are also stored as folders of PNG and of JPEG, packed, and as a plain array.

The first table has pairs/s. Each row runs the training loader (FramePairs, collate) in this process
with one thread; the row `bare` reads the two frames of a pair and does nothing else. The rows take
turns, each for a fraction of a second in every round. Numbers are medians over the rounds; the
files are in the page cache.

The second table shows what compression loses, as PSNR, the mean over frames: of the mp4 to the
original, and of JPEG, made from the mp4's frames, to these frames and to the original. With --clip,
the original is the decoded FILE.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.tables import markdown_table
from common.cli import positive_int, run_entry_point
from common.errors import UserError
from common.files import check_output_file, replacing
from common.safe_paths import printable
from configs.schema import AugmentationConfig
from datasets.clips import ClipFolder
from datasets.loading import loaded_batches
from datasets.pack_writer import PackWriter, write_fragment
from datasets.packed import PackedClips
from datasets.pairs import BatchSchedule, FramePairs
from datasets.puppets.clips import Puppets
from datasets.source import Clip, ClipSource
from media.frame_conversion import ACCURATE
from media.frames import Frame, Frames
from media.images import fit_frames
from media.video import open_clip
from metrics.image import psnr

SIZE = (256, 256)
RATE = Fraction(25)
KEY_FRAMES = (250, 12, 1)  # distances of the key frames, in frames
QUALITY = 95  # of JPEG in folders and packs
JPEGS = [(quality, chroma) for quality in (90, 95, 100) for chroma in ("4:2:0", "4:4:4")]
REPEATS = 100_000  # so many that an epoch outlasts every measurement
BATCH_SIZE = 4
SECONDS = 0.3  # time of a row in a round; longer if a batch takes longer
CLIP = "clip"  # name of the clip


class StoredClip(NamedTuple):
    """The clip stored in one way.

    name: name of the row. clips: reads the clip. folder: holds its files.
    """

    name: str
    clips: ClipSource
    folder: Path


def main(arguments: argparse.Namespace) -> None:
    output = Path(arguments.output)
    check_output_file(output, "data.json")
    torch.set_num_threads(1)
    original = read_original(arguments.clip, arguments.num_frames)
    with tempfile.TemporaryDirectory() as folder:
        stored = store_in_all_ways(Path(folder), original)
        rates = measure(stored, arguments.rounds)
        kilobytes = {way.name: num_bytes(way.folder) / 1000 / len(original) for way in stored}
        if arguments.workers is not None:
            (packed,) = [way for way in stored if way.name == "packed"]
            rates[f"packed, {arguments.workers} processes"] = measure_workers(
                packed, arguments.workers, arguments.rounds
            )
        decoded = stored[0].clips.read(0, range(len(original)))
    reading = [
        {
            "stored as": name,
            "kB a frame": kilobytes.get(name, kilobytes["packed"]),
            "pairs/s": rate,
            "to full decode": rate / rates[stored[0].name],
        }
        for name, rate in rates.items()
    ]
    loss = compression_losses(original, decoded, kilobytes[stored[0].name])
    report = {"clip": arguments.clip or "puppet", "num_frames": len(original)}
    with replacing(output) as temporary:
        text = json.dumps(report | {"reading": reading, "loss": loss}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
    name = printable(arguments.clip or "puppet")
    print(f"{len(original)} frames of {name}, {SIZE[0]} x {SIZE[1]} pixels\n")
    print(f"{_table(reading)}\n\n{_table(loss)}")


def read_original(path: str | None, num_frames: int) -> Frames:
    """Read the first frames of a clip, or of a puppet: N x H x W x 3."""
    if path is None:
        return np.stack([*Puppets("train", 1, num_frames, SIZE, 0, 1.0).stream(0)])
    frames = np.stack([*islice(open_clip(path), num_frames)])
    if len(frames) < 2:
        raise UserError(f"--clip {path}: has a single frame; give a longer clip")
    return fit_frames(frames, SIZE, "crop")


class OneClip:
    """A ClipSource of a single clip, whose frames the function `read` reads."""

    def __init__(self, num_frames: int, read: Callable[[Sequence[int]], Frames]) -> None:
        self.clips: Sequence[Clip] = [Clip(CLIP, CLIP)]
        self.image_size = SIZE
        self._num_frames = num_frames
        self._read = read

    def num_frames(self, index: int) -> int:
        return self._num_frames

    def frame_rate(self, index: int) -> Fraction:
        return RATE

    def stream(self, index: int) -> Iterator[Frame]:
        return iter(self._read(range(self._num_frames)))

    def read(self, index: int, frames: Sequence[int]) -> Frames:
        return self._read(frames)


def store_in_all_ways(folder: Path, original: Frames) -> list[StoredClip]:
    """Store the clip in every way, each in a folder of its own.

    The first entry is the mp4 with the fewest key frames, of which every read decodes all frames.
    """
    stored = []
    for key_frames in KEY_FRAMES:
        root = folder / f"mp4-{key_frames}"
        write_mp4(root / "train" / f"{CLIP}.mp4", original, key_frames)
        name = f"mp4, key frame every {key_frames}"
        stored.append(StoredClip(name, ClipFolder(root, "train", SIZE), root))
    rare = open_clip(folder / f"mp4-{KEY_FRAMES[0]}" / "train" / f"{CLIP}.mp4")
    decoded = np.stack([*rare])
    whole = OneClip(len(decoded), lambda frames: np.stack([*rare])[list(frames)])
    stored.insert(0, StoredClip("mp4, full decode", whole, stored[0].folder))
    for suffix in ("png", "jpg"):
        root = folder / suffix
        (root / "train" / CLIP).mkdir(parents=True)
        for number, frame in enumerate(decoded):
            path = root / "train" / CLIP / f"{number:05d}.{suffix}"
            Image.fromarray(frame).save(path, quality=QUALITY, subsampling="4:4:4")
        stored.append(StoredClip(f"folder of {suffix}", ClipFolder(root, "train", SIZE), root))
    table = write_fragment(folder / "part", CLIP, decoded, QUALITY)
    with PackWriter(folder / "packed", SIZE) as writer:
        writer.append(CLIP, RATE, "", folder / "part", table)
        writer.finish()
    stored.append(StoredClip("packed", PackedClips(folder / "packed", SIZE), folder / "packed"))
    (folder / "array").mkdir()
    np.save(folder / "array" / "frames.npy", decoded)
    array = np.load(folder / "array" / "frames.npy", mmap_mode="r")
    plain = OneClip(len(decoded), lambda frames: array[list(frames)])
    stored.append(StoredClip("array", plain, folder / "array"))
    return stored


def write_mp4(path: Path, frames: Frames, key_frames: int) -> None:
    """Write H.264 with FFmpeg's default settings, and a key frame every `key_frames` frames."""
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", RATE, {"crf": "23"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = key_frames
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.MPEG,
                interpolation=ACCURATE,
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def num_bytes(folder: Path) -> int:
    """Size of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(stored: Sequence[StoredClip], num_rounds: int) -> dict[str, float]:
    """Median pairs per second of every row, by its name; see the file's docstring."""
    with ExitStack() as stack:
        rows: dict[str, Callable[[], object]] = {}
        for name, clips, _ in stored:
            rows[name] = partial(next, stack.enter_context(_loader(clips, 0)))
            if name == "packed":
                rows["packed, bare"] = partial(_read_batch, clips, np.random.default_rng(0))
        found: dict[str, list[float]] = {name: [] for name in rows}
        for index in tqdm(range(1 + num_rounds), unit="round", disable=None):
            for name, make_batch in rows.items():
                rate = _pairs_per_second(make_batch)
                if index > 0:  # in the first round files are not in the page cache yet
                    found[name].append(rate)
    return {name: statistics.median(rates) for name, rates in found.items()}


def measure_workers(packed: StoredClip, num_workers: int, num_rounds: int) -> float:
    """Median pairs per second of a loader with `num_workers` worker processes."""
    with _loader(packed.clips, num_workers) as batches:
        rates = [_pairs_per_second(partial(next, batches)) for _ in range(1 + num_rounds)]
    return statistics.median(rates[1:])


def _loader(clips: ClipSource, num_workers: int) -> Any:
    """The training loader of `clips`, as a context manager that yields an iterator of batches."""
    pairs = FramePairs(clips, REPEATS, AugmentationConfig(), seed=0)
    schedule = BatchSchedule(len(pairs), BATCH_SIZE, seed=0)
    return loaded_batches(pairs, schedule, num_workers, pin_memory=False)


def _read_batch(clips: ClipSource, rng: np.random.Generator) -> None:
    """Read the frames of a batch of random pairs, without the work of the loader."""
    for pair in rng.integers(clips.num_frames(0), size=(BATCH_SIZE, 2)):
        clips.read(0, pair.tolist())


def _pairs_per_second(make_batch: Callable[[], object]) -> float:
    """Call `make_batch` for about `SECONDS` and count the pairs."""
    started = time.perf_counter()
    num_pairs = 0
    while (seconds := time.perf_counter() - started) < SECONDS:
        make_batch()
        num_pairs += BATCH_SIZE
    return num_pairs / seconds


def compression_losses(
    original: Frames, decoded: Frames, mp4_kilobytes: float
) -> list[dict[str, Any]]:
    """The second table: a row for the mp4, and one for each kind of JPEG made of its frames."""
    rows = [_loss_row("mp4, CRF 23", original, decoded, mp4_kilobytes)]
    for quality, chroma in JPEGS:
        files = [_jpeg(frame, quality, chroma) for frame in decoded]
        again = np.stack([np.asarray(Image.open(BytesIO(file))) for file in files])
        kilobytes = sum(map(len, files)) / 1000 / len(files)
        row = _loss_row(f"JPEG {quality}, {chroma}", original, again, kilobytes)
        rows.append(row | {"dB to the mp4": mean_psnr(again, decoded)})
    return rows


def _loss_row(name: str, original: Frames, found: Frames, kilobytes: float) -> dict[str, Any]:
    """A row of the second table, without the PSNR to the mp4."""
    return {
        "": name,
        "kB a frame": kilobytes,
        "dB to the mp4": None,
        "dB to the original": mean_psnr(found, original),
    }


def mean_psnr(found: Frames, wanted: Frames) -> float:
    """Mean PSNR over frames; both arguments are uint8 N x H x W x 3."""
    pairs = zip(map(_to_tensor, found), map(_to_tensor, wanted), strict=True)
    return statistics.fmean(float(psnr(a, b)) for a, b in pairs)


def _to_tensor(frame: Frame) -> Tensor:
    return torch.tensor(frame).permute(2, 0, 1)[None].float() / 255


def _jpeg(frame: Frame, quality: int, chroma: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, "jpeg", quality=quality, subsampling=chroma)
    return buffer.getvalue()


def _table(rows: Sequence[dict[str, Any]]) -> str:
    return markdown_table([{name: _text(value) for name, value in row.items()} for row in rows])


def _text(value: str | float | None) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
    return value or ""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clip", metavar="FILE", help="measure this clip instead of a puppet")
    parser.add_argument(
        "--num-frames", type=positive_int, default=300, help="frames of the clip, at most (300)"
    )
    parser.add_argument("--rounds", type=positive_int, default=7, help="timed rounds (7)")
    parser.add_argument(
        "--workers", type=positive_int, help="add a row: packed, with so many worker processes"
    )
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        default="runs/data.json",
        help="default: runs/data.json",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
