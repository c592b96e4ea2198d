"""Files as a stranger would send them, made on the spot and opened by the programs.

Each must end with exit code 2 and one line within a minute, in 4 GiB of data, of which torch takes
one; no code in it may run, and nothing may be written but what was asked for.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import torch

from common.tensor_files import read_tensors
from tests.helpers.factories import tiny_overrides
from tests.helpers.hostile import (
    write_large_gif,
    write_large_png,
    write_pickled_code,
    write_saved_code,
)
from tests.helpers.media import write_clip

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = ROOT / "docs" / "figures" / "teaser.png"
PATIENCE: Final = 60.0  # seconds
MAX_DATA: Final = 4 * 2**30  # bytes
ALIASES: Final = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


class Attempt(NamedTuple):
    """How a program ended that was given such a file; its last line."""

    name: str
    said: str
    seconds: float
    problems: list[str]


class Workplace(NamedTuple):
    """A folder to make the files in, a checkpoint, and what code of a stranger would leave."""

    folder: Path
    checkpoint: Path
    trace: Path

    def changed(self, name: str, change: Callable[[dict], None]) -> Path:
        """The checkpoint with another content."""
        content = read_tensors(self.checkpoint)
        change(content)
        torch.save(content, self.folder / name)
        return self.folder / name


def _animate(place: Workplace, source: Path, driving: Path, *options: object) -> list[object]:
    files = ("--checkpoint", place.checkpoint, "--source", source, "--driving", driving)
    return ["animate.py", *files, "--output", place.folder / "out.mp4", *options]


def _large_gif(place: Workplace) -> list[object]:
    return _animate(place, PICTURE, write_large_gif(place.folder / "a.gif", 16000, 16000))


def _large_png(place: Workplace) -> list[object]:
    source = write_large_png(place.folder / "a.png", 16000, 16000)
    return _animate(place, source, write_clip(place.folder / "a.mp4", 4))


def _script(place: Workplace) -> list[object]:
    path = place.folder / "b.mp4"
    path.write_text("ffconcat version 1.0\nfile /etc/hostname\n")
    return _animate(place, PICTURE, path)


def _blocks(place: Workplace) -> list[object]:
    def change(content: dict) -> None:
        content["config"]["motion"]["generator"]["num_res_blocks"] = 10_000_000

    return ["animate.py", "--checkpoint", place.changed("blocks.pt", change)]


def _wide(place: Workplace) -> list[object]:
    def change(content: dict) -> None:
        sizes = {"width": 8192, "max_width": 8192, "num_res_blocks": 100}
        content["config"]["motion"]["generator"] |= sizes

    return ["reconstruct.py", "--checkpoint", place.changed("wide.pt", change)]


def _code(place: Workplace) -> list[object]:
    return ["animate.py", "--checkpoint", write_saved_code(place.folder / "code.pt", place.trace)]


def _cached_vgg(place: Workplace) -> list[object]:
    write_pickled_code(
        place.folder / "torch" / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth", place.trace
    )
    options = (*tiny_overrides(), "perceptual.weights=imagenet", "perceptual.network=vgg19")
    output = f"run.output_dir={place.folder / 'run'}"
    return ["train.py", "--config", "demo.yaml", *options, "perceptual.width=64", output]


def _aliases(place: Workplace) -> list[object]:
    path = place.folder / "aliases.yaml"
    path.write_text(f"a: &a [x, x, x]\n{ALIASES}")
    return ["train.py", "--config", path]


def _pack(place: Workplace) -> list[object]:
    folder = place.folder / "pack" / "test"
    folder.mkdir(parents=True)
    header = {"format": 1, "image_size": [32, 32], "shards": {"00000.tar": 512}}
    (folder / "pack.json").write_text(json.dumps(header))
    clip = {"name": "../../x", "num_frames": 1, "frame_rate": "25", "shard": "00000.tar"}
    (folder / "clips.jsonl").write_text(json.dumps(clip | {"end": 512, "source": "x"}) + "\n")
    (folder / "00000.tar").write_bytes(bytes(512))
    (folder / "frames.bin").write_bytes(bytes(64))
    return ["reconstruct.py", "--checkpoint", place.checkpoint, "--data-root", folder.parent]


def _pairs(place: Workplace) -> list[object]:
    path = place.folder / "pairs.csv"
    clip = write_clip(place.folder / "c.mp4", 4)
    path.write_text(f"source,driving,output\n{PICTURE},{clip},../../outside.mp4\n")
    output = place.folder / "many"
    return ["animate.py", "--checkpoint", place.checkpoint, "--pairs", path, "--output", output]


FILES: Final[dict[str, Callable[[Workplace], list[object]]]] = {
    "GIF of 16000 x 16000": _large_gif,
    "PNG of 16000 x 16000": _large_png,
    "ffconcat named .mp4": _script,
    "checkpoint of 10,000,000 blocks": _blocks,
    "checkpoint of other sizes than its tensors": _wide,
    "checkpoint with code": _code,
    "VGG with code in the cache": _cached_vgg,
    "YAML of aliases": _aliases,
    "pack with ../../x": _pack,
    "pairs.csv with ../../x": _pairs,
}


def open_all(folder: Path, checkpoint: Path) -> list[Attempt]:
    """Make each of FILES in a folder of its own, and give it to its program."""
    attempts = []
    for number, (name, make) in enumerate(FILES.items()):
        place = Workplace(folder / str(number), checkpoint, folder / f"{number}-was-run")
        place.folder.mkdir(parents=True)
        attempts.append(_open(name, make(place), place))
    return attempts


def _open(name: str, command: list[object], place: Workplace) -> Attempt:
    environment = os.environ | {"TORCH_HOME": str(place.folder / "torch"), "OMP_NUM_THREADS": "1"}
    script, *arguments = map(str, command)
    before = set(place.folder.parent.iterdir())
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, ROOT / script, *arguments, "--device", "cpu"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=place.folder,
        preexec_fn=_limit_memory,
    )
    try:
        _, said = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
    seconds = time.monotonic() - began
    problems = []
    if process.returncode != 2:
        problems.append(f"exit code {process.returncode}")
    if "Traceback" in said or f"{script}: error: " not in said:
        problems.append("no clear line")
    if place.trace.exists():
        problems.append("its code was run")
    if set(place.folder.parent.iterdir()) != before:
        problems.append("something was written outside")
    return Attempt(name, said.strip().rpartition("\n")[2], seconds, problems)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_DATA, MAX_DATA))
