"""Untrusted files with bad intentions: makes them and opens them with the programs.

A program that gets such a file must end with exit code 2 and one line, within three minutes and
4 GiB of memory, of which torch alone takes one. No code in the file may run, and nothing may be
written outside of what the command names.
"""

import json
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import torch

from common.tensor_files import read_tensors
from tests.helpers.clip_files import field, write_records
from tests.helpers.factories import tiny_overrides
from tests.helpers.hostile import (
    write_large_gif,
    write_large_png,
    write_pickled_code,
    write_saved_code,
)
from tests.helpers.hostile_media import (
    write_chapters,
    write_comment,
    write_exif,
    write_hidden_fragment,
    write_keys,
    write_laces,
    write_many_samples,
    write_precincts,
    write_scans,
)
from tests.helpers.media import write_clip

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = ROOT / "docs" / "figures" / "teaser.png"
TIMEOUT: Final = 180.0  # seconds that a program may take; 30 of processor time to open a file
MAX_DATA: Final = 4 * 2**30  # bytes of memory that a program may take
# YAML in which each line repeats the one before it nine times.
ALIASES: Final = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


class Outcome(NamedTuple):
    """How a program ended that was given the file `name`.

    last_line: the last line that it printed to stderr.
    problems: what is not as it must be.
    """

    name: str
    last_line: str
    seconds: float
    problems: list[str]


class Sandbox(NamedTuple):
    """The place where an untrusted file is made and opened.

    folder: the folder that the program may write to.
    checkpoint: a good checkpoint.
    trace: a file that code in the untrusted file would leave behind.
    """

    folder: Path
    checkpoint: Path
    trace: Path

    def changed(self, name: str, change: Callable[[dict], None]) -> Path:
        """Write a copy of the checkpoint whose content `change` has changed; returns its path."""
        content = read_tensors(self.checkpoint)
        change(content)
        torch.save(content, self.folder / name)
        return self.folder / name


# Each function below makes a file, and returns the command that opens it.


def _animate(sandbox: Sandbox, source: Path, driving: Path, *options: object) -> list[object]:
    files = ("--checkpoint", sandbox.checkpoint, "--source", source, "--driving", driving)
    return ["animate.py", *files, "--output", sandbox.folder / "out.mp4", *options]


def _large_gif(sandbox: Sandbox) -> list[object]:
    return _animate(sandbox, PICTURE, write_large_gif(sandbox.folder / "a.gif", 16000, 16000))


def _large_png(sandbox: Sandbox) -> list[object]:
    source = write_large_png(sandbox.folder / "a.png", 16000, 16000)
    return _animate(sandbox, source, write_clip(sandbox.folder / "a.mp4", 4))


def _as_source(write: Callable[[Path], Path]) -> Callable[[Sandbox], list[object]]:
    """Give a picture to `animate.py`."""

    def make(sandbox: Sandbox) -> list[object]:
        source = write(sandbox.folder / "a.png")
        return _animate(sandbox, source, write_clip(sandbox.folder / "a.mp4", 4))

    return make


def _as_driving(write: Callable[[Path], Path]) -> Callable[[Sandbox], list[object]]:
    """Give a clip to `animate.py`."""
    return lambda sandbox: _animate(sandbox, PICTURE, write(sandbox.folder / "a.mp4"))


def _ffconcat_script(sandbox: Sandbox) -> list[object]:
    path = sandbox.folder / "b.mp4"
    path.write_text("ffconcat version 1.0\nfile /etc/hostname\n")
    return _animate(sandbox, PICTURE, path)


def _many_blocks(sandbox: Sandbox) -> list[object]:
    def change(content: dict) -> None:
        content["config"]["motion"]["generator"]["num_res_blocks"] = 10_000_000

    return ["animate.py", "--checkpoint", sandbox.changed("blocks.pt", change)]


def _wrong_sizes(sandbox: Sandbox) -> list[object]:
    def change(content: dict) -> None:
        sizes = {"width": 8192, "max_width": 8192, "num_res_blocks": 100}
        content["config"]["motion"]["generator"] |= sizes

    return ["reconstruct.py", "--checkpoint", sandbox.changed("wide.pt", change)]


def _checkpoint_with_code(sandbox: Sandbox) -> list[object]:
    return [
        "animate.py",
        "--checkpoint",
        write_saved_code(sandbox.folder / "code.pt", sandbox.trace),
    ]


def _lying_safetensors(sandbox: Sandbox) -> list[object]:
    entry = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    header = json.dumps({"generator.weight": entry}).encode()
    path = sandbox.folder / "lying.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return ["animate.py", "--checkpoint", path]


def _cached_vgg_with_code(sandbox: Sandbox) -> list[object]:
    write_pickled_code(
        sandbox.folder / "torch" / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth", sandbox.trace
    )
    options = (*tiny_overrides(), "perceptual.weights=imagenet", "perceptual.network=vgg19")
    output = f"run.output_dir={sandbox.folder / 'run'}"
    return ["train.py", "--config", "demo.yaml", *options, "perceptual.width=64", output]


def _yaml_aliases(sandbox: Sandbox) -> list[object]:
    path = sandbox.folder / "aliases.yaml"
    path.write_text(f"a: &a [x, x, x]\n{ALIASES}")
    return ["train.py", "--config", path]


def _pack_outside(sandbox: Sandbox) -> list[object]:
    folder = sandbox.folder / "pack" / "test"
    folder.mkdir(parents=True)
    header = {"format": 1, "image_size": [32, 32], "shards": {"00000.tar": 512}}
    (folder / "pack.json").write_text(json.dumps(header))
    clip = {"name": "../../x", "num_frames": 1, "frame_rate": "25", "shard": "00000.tar"}
    (folder / "clips.jsonl").write_text(json.dumps(clip | {"end": 512, "source": "x"}) + "\n")
    (folder / "00000.tar").write_bytes(bytes(512))
    (folder / "frames.bin").write_bytes(bytes(64))
    return ["reconstruct.py", "--checkpoint", sandbox.checkpoint, "--data-root", folder.parent]


def _pack_with_a_large_frame(sandbox: Sandbox) -> list[object]:
    command = _pack_outside(sandbox)
    folder = sandbox.folder / "pack" / "test"
    header = {"format": 1, "image_size": [32, 32], "shards": {"00000.tar": 2**33}}
    (folder / "pack.json").write_text(json.dumps(header))
    clip = {"name": "x", "num_frames": 2, "frame_rate": "25", "shard": "00000.tar"}
    (folder / "clips.jsonl").write_text(json.dumps(clip | {"end": 2**33, "source": "x"}) + "\n")
    os.truncate(folder / "00000.tar", 2**33)
    (folder / "frames.bin").write_bytes(struct.pack("<QII", 0, 2**32 - 1, 0) * 2)
    return command


def _many_records(sandbox: Sandbox) -> list[object]:
    path = write_records(sandbox.folder / "input" / "a.tfrecord", [b""])
    path.write_bytes(path.read_bytes() * 6_000_000)
    return _prepare(path)


def _nested_record(sandbox: Sandbox) -> list[object]:
    feature = field(1, field(1, b"") * 60_000)
    entry = field(1, b"0/image_aux1/encoded") + field(2, feature) * 500
    records = [field(1, field(1, entry))] * 2
    return _prepare(write_records(sandbox.folder / "input" / "a.tfrecord", records))


def _prepare(path: Path) -> list[object]:
    folders = ("--input", path.parent, "--output", path.parent.with_name("prepared"))
    return ["-m", "datasets.prepare", *folders, "--test-share", 0]


def _pairs_outside(sandbox: Sandbox) -> list[object]:
    path = sandbox.folder / "pairs.csv"
    clip = write_clip(sandbox.folder / "c.mp4", 4)
    path.write_text(f"source,driving,output\n{PICTURE},{clip},../../outside.mp4\n")
    output = sandbox.folder / "many"
    return ["animate.py", "--checkpoint", sandbox.checkpoint, "--pairs", path, "--output", output]


FILES: Final[dict[str, Callable[[Sandbox], list[object]]]] = {
    "GIF of 16000 x 16000": _large_gif,
    "PNG of 16000 x 16000": _large_png,
    "ffconcat named .mp4": _ffconcat_script,
    "JPEG with tags on each other": _as_source(write_exif),
    "JPEG of 20,000 scans": _as_source(partial(write_scans, num_scans=20_000)),
    "JPEG 2000 of 16,000,000 precincts": _as_source(write_precincts),
    "GIF with a comment of 15 MB": _as_source(write_comment),
    "mp4 of 20,000,000 samples": _as_driving(write_many_samples),
    "mp4 with an index to hidden samples": _as_driving(
        partial(write_hidden_fragment, num_samples=80_000_000)
    ),
    "mp4 of 30,000 chapters": _as_driving(write_chapters),
    "mp4 of 300,000 notes": _as_driving(partial(write_keys, num_keys=300_000)),
    "mkv of 256 compressed laces": _as_driving(write_laces),
    "checkpoint of 10,000,000 blocks": _many_blocks,
    "checkpoint of other sizes than its tensors": _wrong_sizes,
    "checkpoint with code": _checkpoint_with_code,
    "safetensors of 4 TiB in 100 bytes": _lying_safetensors,
    "VGG with code in the cache": _cached_vgg_with_code,
    "YAML of aliases": _yaml_aliases,
    "pack with ../../x": _pack_outside,
    "pack with a frame of 4 GiB": _pack_with_a_large_frame,
    "TFRecord of 6,000,000 empty records": _many_records,
    "TFRecord of 60,000,000 nested fields": _nested_record,
    "pairs.csv with ../../x": _pairs_outside,
}


def open_all(folder: Path, checkpoint: Path) -> list[Outcome]:
    """Make each of FILES in a folder of its own, and open it with its program."""
    outcomes = []
    for number, (name, make) in enumerate(FILES.items()):
        sandbox = Sandbox(folder / str(number), checkpoint, folder / f"{number}-was-run")
        sandbox.folder.mkdir(parents=True)
        outcomes.append(_open(name, make(sandbox), sandbox))
    return outcomes


def _open(name: str, command: list[object], sandbox: Sandbox) -> Outcome:
    """Run `command` with limited memory and time, and check how it ends."""
    environment = os.environ | {
        "TORCH_HOME": str(sandbox.folder / "torch"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    first, *arguments = map(str, command)
    if first == "-m":
        program = f"python -m {arguments[0]}"
    else:
        first, program = str(ROOT / first), first
        arguments += ["--device", "cpu"]
    before = set(sandbox.folder.parent.iterdir())
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, first, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=sandbox.folder,
        preexec_fn=_limit_memory,
    )
    try:
        _, output = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        _, output = process.communicate()
    seconds = time.monotonic() - began
    problems = []
    if process.returncode != 2:
        problems.append(f"exit code {process.returncode}")
    if "Traceback" in output or f"{program}: error: " not in output:
        problems.append("no clear line")
    if sandbox.trace.exists():
        problems.append("its code was run")
    if set(sandbox.folder.parent.iterdir()) != before:
        problems.append("something was written outside")
    return Outcome(name, output.strip().rpartition("\n")[2], seconds, problems)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_DATA, MAX_DATA))
