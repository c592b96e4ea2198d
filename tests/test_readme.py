"""Every command of the README does what it says: run as it stands, only smaller."""

import re
import shlex
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import animate
import reconstruct
import train
from benchmarks import puppets
from config import BRANCHES
from config_file import load_config
from datasets.images import write_image
from modules.vgg import VGGFeatures, relu_layers
from tests.factories import tiny_overrides
from tests.media import write_clip
from tests.runs import REPOSITORY, call

SCRIPTS = {
    "train.py": train,
    "reconstruct.py": reconstruct,
    "animate.py": animate,
    "benchmarks.puppets": puppets,
}

# Installing is what this test stands on, the demo has a run of its own, and a server does not end.
ELSEWHERE = (
    "make demo",
    "make test",
    "python run_demo.py",
    "source .venv/bin/activate",
    "python3 -m venv .venv",
    ".venv/bin/python -m pip install -r requirements.txt",
    ".venv/bin/python run_demo.py",
    "tensorboard --logdir runs/demo",
)


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [line for line in lines if line not in ELSEWHERE]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_run) -> Path:
    """A folder with everything that the README's commands name."""
    folder = tmp_path_factory.mktemp("readme")
    for split, name in (("train", "anna#a"), ("train", "ben#b"), ("test", "carla#c")):
        write_clip(folder / "data/vox" / split / f"{name}.mp4", 4, (36, 32))
    for seed, name in enumerate(("source.png", "third.png")):
        noise = np.random.default_rng(seed).integers(256, size=(40, 32, 3), dtype=np.uint8)
        write_image(folder / name, noise)
    shutil.copytree(folder / "data/vox", folder / "data/heads")
    write_clip(folder / "driving.mp4", 4, (32, 40))
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
    assert python == "python"
    if script == "-m":
        script, *arguments = arguments
        arguments += ["--num-clips", "3"]
    if script == "train.py":
        arguments += smaller(arguments, run=f"run-{zlib.crc32(command.encode())}")
    assert call(SCRIPTS[script], *arguments) == 0
