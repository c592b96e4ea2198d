"""Every command of the README and of docs/ works: run as it stands, only smaller, or parsed."""

import contextlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import pytest
import torch
import yaml

import benchmarks.animate
import benchmarks.data
import benchmarks.train
import datasets.prepare.__main__
from common.cli import run_entry_point
from configs.loading import load_config
from configs.schema import BRANCHES, Config
from media.images import write_image
from modules.vgg import VGGFeatures, relu_layers
from tests.helpers.factories import tiny_config, tiny_overrides
from tests.helpers.lively import kind_config, write_checkpoint
from tests.helpers.media import write_clip, write_tone
from tests.helpers.published_files import FOMM, MONKEY_NET, TPSMM, X2FACE, Project, write_published
from tests.helpers.runs import REPOSITORY, call
from tests.helpers.script_files import MeanColours, write_script
from tests.helpers.tiny_kinds import tiny_motion

PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))

# Some commands read what others wrote: one process runs them all, in their order.
pytestmark = pytest.mark.xdist_group("readme")

# Commands that are neither run nor parsed here, with the reason.
ELSEWHERE = {
    "make demo": "benchmarks/test_demo.py tries it",
    "make test": "it runs this test",
    "source .venv/bin/activate": "set-up, which this test stands on",
    "python3 -m venv .venv": "set-up",
    ".venv/bin/python -m pip install -r requirements.txt": "set-up",
    ".venv/bin/python -m benchmarks.demo": "benchmarks/test_demo.py tries it",
    "python -m benchmarks.gpu --output runs/gpu": "benchmarks/test_gpu.py tries it",
    "make eval": "set-up",
    "pip install -e '.[web]'": "set-up",
    "python -m pip install -e '.[docs]'": "set-up",
    "python -m web --checkpoint runs/demo/checkpoints/best.pt": "test_browser.py tries it",
    "python animate.py --checkpoint runs/demo/checkpoints/best.pt --source source.png "
    "--driving camera:0": "it needs a camera; test_animate_camera.py plays a file as one",
    "tensorboard --logdir runs/demo": "a server of another project",
    "torchrun --nproc-per-node 4 train.py --config vox.yaml data.root=data/vox": (
        "the same for two processes is run"
    ),
    (
        "torchrun --nproc-per-node 8 --master-port 29500 train.py --config vox.yaml "
        "data.root=data/vox --resume auto"
    ): "the same for two processes is run",
    "sbatch docs/train.sbatch --config vox.yaml data.root=data/vox": "test_sbatch.py runs it",
    **{
        f"torchrun --nnodes 2 --node-rank {rank} --master-addr 10.0.0.1 --master-port 29500 "
        "--nproc-per-node 8 train.py --config vox.yaml data.root=data/vox --resume auto": (
            "needs two machines"
        )
        for rank in range(2)
    },
}

# Measurements and figures that take from minutes to hours: whole pages, and commands of the others.
# Their options are parsed and their configs read.
PAGES_OF_MEASUREMENTS = ("performance.md", "results.md")
LONG = re.compile(
    r"docs[/.]|benchmarks\.(ablation|detectors|exchange|keypoints|matting) "
    r"|runs/(too-fast|no-prior|plates)$"
)

# Published files that the pages name, each with a small config in place of that of its command.
PUBLISHED: Final[tuple[tuple[str, str, Project, tuple[str, ...]], ...]] = (
    ("vox-adv-cpk.pth.tar", "vox-fomm-adv.yaml", FOMM, ()),
    ("x2face_model.pth", "vox-x2face.yaml", X2FACE, ()),
    ("tpsmm-vox.pth.tar", "vox-tpsmm-avd.yaml", TPSMM, ("motion.avd.code=8",)),
    ("monkey-net-vox.pth.tar", "vox-monkey-net.yaml", MONKEY_NET, ()),
)

# Of what a benchmark repeats.
FEWER = {
    "benchmarks.animate": ("--frames", "2", "--clip-frames", "2"),
    "benchmarks.data": ("--num-frames", "9"),
    "benchmarks.train": ("--steps", "1", "--loaded-steps", "1"),
}


def commands_of(page: Path) -> list[str]:
    """The lines of the page's bash blocks; one that ends in a backslash goes on in the next."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and line not in ELSEWHERE]


def run_and_parsed() -> tuple[list[str], list[str]]:
    """Commands to be run, in the order of the pages, and those that are only parsed; each once."""
    run: dict[str, None] = {}
    parsed: dict[str, None] = {}
    for page in PAGES:
        for command in commands_of(page):
            is_long = page.name in PAGES_OF_MEASUREMENTS or LONG.search(command)
            (parsed if is_long else run)[command] = None
    return list(run), [command for command in parsed if command not in run]


RUN, PARSED = run_and_parsed()


def program(command: str) -> tuple[ModuleType, list[str]]:
    """The module that a `python` command runs, and its arguments; variables before it are left
    out.
    """
    words = shlex.split(command)
    python, script, *arguments = words[next(i for i, w in enumerate(words) if "=" not in w) :]
    assert python == "python"
    if script == "-m":
        name, *arguments = arguments
    else:
        name = script.removesuffix(".py").replace("/", ".")
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):  # a folder
        module = importlib.import_module(f"{name}.__main__")
    return module, arguments


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_run) -> Path:
    """A folder with everything that the commands name."""
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
    (folder / "masks").mkdir()
    for name in ("mask", *(f"masks/{number}" for number in range(4))):
        mask = np.zeros((40, 32, 3), np.uint8)
        mask[10:30, 8:24] = 255
        write_image(folder / f"{name}.png", mask)
    noise = np.random.default_rng(2).integers(256, size=(60, 40, 3), dtype=np.uint8)
    write_image(folder / "photo.jpg", noise)
    for name in ("anna", "ben"):
        (folder / "faces").mkdir(exist_ok=True)
        shutil.copy(folder / "source.png", folder / "faces" / f"{name}.png")
        write_clip(folder / "clips" / f"{name}.mp4", 2, (32, 40))
    for name, config_name, project, overrides in PUBLISHED:
        config = project.config("data.kind=clips", "data.root=data/vox", *overrides)
        write_published(folder / name, project, project.content(config))
        (folder / config_name).write_text(yaml.safe_dump(config.model_dump()))
    small = ("data.image_size=32", "masks=null", "background=null")
    write_checkpoint(folder / "x2face.pt", kind_config("x2face", *small))
    write_script(folder / "inception-2015-12-05.pt", MeanColours())
    write_script(folder / "i3d_torchscript.pt", MeanColours())
    stages = {"vox-tpsmm": (), "vox-tpsmm-avd": ("motion.avd.code=128",)}
    for name, sections in stages.items():
        path = folder / "runs" / name / "checkpoints/best.pt"
        path.parent.mkdir(parents=True)
        overrides = (*small, "motion.background_motion.start_epoch=0", *sections)
        write_checkpoint(path, kind_config("tpsmm", *overrides))
    for name, other in (("motion", "masks"), ("masks", "motion")):
        path = folder / "runs" / name / "checkpoints/best.pt"
        path.parent.mkdir(parents=True)
        nulls = (f"{other}=null", "background=null", "discriminator=null")
        write_checkpoint(path, tiny_config(*nulls))
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


def own_config(arguments: list[str]) -> Config | None:
    """The command's config, with the sections that it sets to null; None if it names none."""
    if "--config" not in arguments:
        return None
    nulls = [argument for argument in arguments if argument.endswith("=null")]
    return load_config(arguments[arguments.index("--config") + 1], nulls)


def absent(config: Config | None) -> set[str]:
    """Sections that are null in the command's config: an override would switch them on."""
    names = (*BRANCHES, "discriminator")
    return set() if config is None else {n for n in names if getattr(config, n) is None}


def smaller(arguments: list[str], run: str) -> list[str]:
    """Overrides for tiny networks and one more step, in a run of its own unless it resumes one.

    What shapes the command stays: its data, and a VGG of full width where it gives a file of one.
    """
    kept = {"data.kind", "data.id_sampling"}
    if any(argument.startswith("perceptual.weights=weights/") for argument in arguments):
        kept |= {"perceptual.network", "perceptual.weights", "perceptual.width"}
    config = own_config(arguments)
    kind = "fomm" if config is None or config.motion is None else config.motion.kind
    left_out = absent(config) | ({"motion"} if kind != "fomm" else set())
    overrides = [
        override
        for override in tiny_overrides()
        if override.split("=")[0] not in kept and override.split(".")[0] not in left_out
    ]
    overrides += [*tiny_motion(kind), "train.max_steps=9"]
    # The BatchNorm of kind tpsmm sees a single pixel of each of so small images.
    of_kind = "motion.background_motion.start_epoch=0" if kind == "tpsmm" else "train.micro_batch=1"
    overrides.append(of_kind)
    if "demo.yaml" not in arguments:
        overrides += [f"run.output_dir=runs/{run}", "data.repeats=8"]
    return overrides


def test_commands_are_found():
    assert len(RUN) > 40
    assert len(PARSED) > 20
    texts = [page.read_text() for page in PAGES]
    assert [c for c in ELSEWHERE if not any(f"\n{c}\n" in text for text in texts)] == []


@pytest.mark.parametrize("command", RUN)
def test_command(command, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    run = f"run-{zlib.crc32(command.encode())}"
    if command.startswith("torchrun "):
        torchrun(shlex.split(command)[1:], run)
        return
    module, arguments = program(command)
    name = module.__name__
    if name == "benchmarks.puppets":
        arguments += ["--num-clips", "3"]
    if name == "benchmarks.preflight":
        arguments += ["--clips", "100"]
    if name in FEWER:
        arguments += ["--rounds", "1", *FEWER[name]]
        monkeypatch.setattr(benchmarks.data, "SECONDS", 0.001)
        for benchmark in (benchmarks.train, benchmarks.animate):
            monkeypatch.setattr(benchmark, "in_fresh_process", lambda measure: measure())
    if name in ("train", "benchmarks.train"):
        arguments += smaller(arguments, run)
    if "--device" in module.build_parser().format_help():
        assert call(module, *arguments) == 0
    else:
        assert run_without_device(module, arguments) == 0


@pytest.mark.parametrize("command", PARSED)
def test_options_of_long_command(command):
    if re.search(r"docs[/.]", command):
        pytest.importorskip("matplotlib")
    module, arguments = program(command)
    parsed = module.build_parser().parse_intermixed_args(arguments)
    if getattr(parsed, "overrides", None):
        load_config(parsed.config, parsed.overrides)


def run_without_device(module: ModuleType, arguments: list[str]) -> int:
    """Of a program that knows no --device."""
    return run_entry_point(module.main, module.build_parser(), arguments)


def torchrun(options: list[str], run: str) -> None:
    """As the command does it, with its processes; `options` are torchrun's and the script's."""
    place, script = next((i, word) for i, word in enumerate(options) if word.endswith(".py"))
    launcher = [sys.executable, "-m", "torch.distributed.run", *options[:place]]
    overrides = smaller(options, run) if script == "train.py" else []
    arguments = [*options[place + 1 :], *overrides, "--device", "cpu"]
    subprocess.run(
        [*launcher, str(REPOSITORY / script), *arguments],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )


def test_python(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    texts = "".join(page.read_text() for page in PAGES)
    (code,) = re.findall(r"```python\n(.*?)```", texts, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "animation.md", "exec"), names)
    assert capsys.readouterr().out.splitlines() == ["(32, 32, 3)"] * 4
    assert len(list(names["frames"])) == 4
