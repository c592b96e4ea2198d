"""Every command of the README does what it says: run as it stands, only smaller."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml

import animate
import benchmarks.animate
import benchmarks.data
import benchmarks.train
import datasets.prepare.__main__
import datasets.unpack
import export
import reconstruct
import train
from benchmarks import puppets
from cli import run_entry_point
from config import BRANCHES
from config_file import load_config
from datasets.images import write_image
from modules.vgg import VGGFeatures, relu_layers
from tests.factories import tiny_overrides
from tests.media import write_clip, write_tone
from tests.published_files import fomm_content, motion_config, write
from tests.runs import REPOSITORY, call

# Some commands read what others wrote: one process runs them all, in their order.
pytestmark = pytest.mark.xdist_group("readme")

SCRIPTS = {
    "checkpoint": export,
    "train.py": train,
    "reconstruct.py": reconstruct,
    "animate.py": animate,
    "benchmarks.puppets": puppets,
    "benchmarks.animate": benchmarks.animate,
    "benchmarks.data": benchmarks.data,
    "benchmarks.train": benchmarks.train,
    "datasets.prepare": datasets.prepare.__main__,
    "datasets.unpack": datasets.unpack,
}

# Installing is what this test stands on, the demo has a run of its own, and servers do not end; the
# page is tried in test_demo.py.
ELSEWHERE = (
    "make demo",
    "make test",
    "python run_demo.py",
    "source .venv/bin/activate",
    "python3 -m venv .venv",
    ".venv/bin/python -m pip install -r requirements.txt",
    ".venv/bin/python run_demo.py",
    "make eval",
    "pip install -r requirements-demo.txt",
    "python demo.py --checkpoint runs/demo/checkpoints/best.pt",
    "tensorboard --logdir runs/demo",
    # The same for two processes is tried.
    "torchrun --nproc-per-node 4 train.py --config vox.yaml data.root=data/vox",
)

# Of what a benchmark repeats.
FEWER = {
    "benchmarks.animate": ("--frames", "2", "--clip-frames", "2"),
    "benchmarks.data": ("--num-frames", "9"),
    "benchmarks.train": ("--steps", "1", "--loaded-steps", "1"),
}


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [line for line in lines if line not in ELSEWHERE]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_run) -> Path:
    """A folder with everything that the README's commands name."""
    folder = tmp_path_factory.mktemp("readme")
    for split, name in (("train", "anna#walk"), ("train", "ben#b"), ("test", "carla#c")):
        write_clip(folder / "data/vox" / split / f"{name}.mp4", 4, (36, 32))
    packed = ["--input", "data/vox", "--output", "data/vox-packed", "--workers", "1"]
    with contextlib.chdir(folder):
        assert run_without_device(datasets.prepare.__main__, packed) == 0
    for seed, name in enumerate(("source.png", "third.png")):
        noise = np.random.default_rng(seed).integers(256, size=(40, 32, 3), dtype=np.uint8)
        write_image(folder / name, noise)
    shutil.copytree(folder / "data/vox", folder / "data/heads")
    write_clip(folder / "driving.mp4", 4, (32, 40))
    noise = np.random.default_rng(2).integers(256, size=(60, 40, 3), dtype=np.uint8)
    write_image(folder / "photo.jpg", noise)
    for name in ("anna", "ben"):
        (folder / "faces").mkdir(exist_ok=True)
        shutil.copy(folder / "source.png", folder / "faces" / f"{name}.png")
        write_clip(folder / "clips" / f"{name}.mp4", 2, (32, 40))
    config = motion_config("data.kind=clips", "data.root=data/vox")
    write(folder / "vox-adv-cpk.pth.tar", fomm_content(config))
    (folder / "vox-fomm-adv.yaml").write_text(yaml.safe_dump(config.model_dump()))
    (folder / "pairs.csv").write_text("source,driving\nsource.png,driving.mp4\n")
    write_tone(folder / "speech.wav")
    write_clip(folder / "beach.mp4", 2, (32, 40))
    shutil.copytree(tiny_run, folder / "runs/demo")
    # The file of a trained network of full width, as small as it may be.
    vgg = VGGFeatures("vgg16", relu_layers("vgg16")).convs.state_dict()
    (folder / "weights").mkdir()
    torch.save(
        {f"features.{name}": tensor.half() for name, tensor in vgg.items()},
        folder / "weights/vgg16.pth",
    )
    return folder


def absent(arguments: list[str]) -> set[str]:
    """Sections that are null in the command's config: an override would switch them on."""
    if "--config" not in arguments:
        return set()
    nulls = [argument for argument in arguments if argument.endswith("=null")]
    config = load_config(arguments[arguments.index("--config") + 1], nulls)
    return {name for name in (*BRANCHES, "discriminator") if getattr(config, name) is None}


def smaller(arguments: list[str], run: str) -> list[str]:
    """Overrides for tiny networks and one more step, in a run of its own unless it resumes one.

    What shapes the command stays: its data, and a VGG of full width where it gives a file of one.
    """
    kept = {"data.kind", "data.id_sampling"}
    if any(argument.startswith("perceptual.weights=weights/") for argument in arguments):
        kept |= {"perceptual.network", "perceptual.weights", "perceptual.width"}
    overrides = [
        override
        for override in tiny_overrides()
        if override.split("=")[0] not in kept and override.split(".")[0] not in absent(arguments)
    ]
    overrides += ["train.max_steps=9", "train.micro_batch=1"]
    if "demo.yaml" not in arguments:
        overrides += [f"run.output_dir=runs/{run}", "data.repeats=8"]
    return overrides


def test_the_readme_has_commands():
    assert len(readme_commands()) > 12


@pytest.mark.parametrize("command", readme_commands())
def test_readme_command(command, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    python, script, *arguments = shlex.split(command)
    if python == "torchrun":
        torchrun(script, arguments, run=f"run-{zlib.crc32(command.encode())}")
        return
    assert python == "python"
    if script == "-m":
        script, *arguments = arguments
    if script == "benchmarks.puppets":
        arguments += ["--num-clips", "3"]
    if script in FEWER:
        arguments += ["--rounds", "1", *FEWER[script]]
        monkeypatch.setattr(benchmarks.data, "SECONDS", 0.001)
        for benchmark in (benchmarks.train, benchmarks.animate):
            monkeypatch.setattr(benchmark, "in_fresh_process", lambda measure: measure())
    if script in ("train.py", "benchmarks.train"):
        arguments += smaller(arguments, run=f"run-{zlib.crc32(command.encode())}")
    module = SCRIPTS[script]
    if script in ("checkpoint", "benchmarks.data", "datasets.prepare", "datasets.unpack"):
        assert run_without_device(module, arguments) == 0
    else:
        assert call(module, *arguments) == 0


def run_without_device(module: ModuleType, arguments: list[str]) -> int:
    """Of a program that knows no --device."""
    return run_entry_point(module.main, module.build_parser(), arguments)


def torchrun(script: str, arguments: list[str], run: str) -> None:
    """As the command does it, with its processes; `arguments` are torchrun's and the script's."""
    options = [script, *arguments]
    place = options.index("train.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", *options[:place]]
    arguments = [*options[place + 1 :], *smaller(options, run), "--device", "cpu"]
    subprocess.run(
        [*launcher, str(REPOSITORY / "train.py"), *arguments],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )


def test_readme_python(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert capsys.readouterr().out.splitlines() == ["(32, 32, 3)"] * 4
    assert len(list(names["frames"])) == 4
