"""Train a model: python train.py --config vox.yaml [key.sub=value ...]"""

import argparse
import json
import platform
import re
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path

import checkpoint
from adversary import build_adversary
from cli import add_device_argument, pick_device, run_entry_point
from config import Config
from config_file import dump_config, load_config, override_config
from datasets.build import build_pairs, build_source, preflight
from errors import UserError
from files import replacing
from model import Model
from perceptual_weights import load_perceptual
from training import Trainer

_LIBRARIES = ("torch", "torchvision", "av", "numpy", "pydantic")


def main(arguments: argparse.Namespace) -> int | None:
    resume, overrides = _part_resume(arguments.resume, arguments.overrides)
    saved = None if resume in (None, "auto") else checkpoint.load_to_resume(Path(resume))
    if arguments.config is not None:
        config = load_config(arguments.config, overrides)
    elif saved is not None:
        config = override_config(saved.config, overrides)
    else:
        raise UserError("--config is missing: give a file, or a name such as vox.yaml")
    if arguments.print_config:
        print(dump_config(config), end="")
        return None
    if config.run.output_dir is None:
        raise UserError("run.output_dir: found null; give a folder")
    output_dir = Path(config.run.output_dir)
    if resume == "auto":
        saved = _newest_checkpoint(output_dir)
    elif later := checkpoint.list_steps(output_dir, after=saved.step if saved else -1):
        raise UserError(
            f"run.output_dir: {output_dir} already has {'later ' if saved else ''}checkpoints "
            f"({later[0].name}); continue with --resume, or choose another folder with "
            "run.output_dir=..."
        )

    device = pick_device(arguments.device)
    pairs = build_pairs(config)
    test_clips = build_source(config.data, "test")
    print(preflight(pairs.clips))
    print(preflight(test_clips, max_unreadable=0))  # metrics over fewer clips are others
    perceptual = load_perceptual(config)
    model, adversary = Model(config), build_adversary(config)
    if saved is not None and arguments.init_from is not None:
        print(f"--init-from {arguments.init_from}: left out, since the run continues from its own")
    elif arguments.init_from is not None:
        networks = model.networks | (adversary.networks if adversary is not None else {})
        print(f"{arguments.init_from}: {checkpoint.init_from(networks, Path(arguments.init_from))}")

    trainer = Trainer(config, model, adversary, perceptual, pairs, test_clips, device, output_dir)
    if saved is not None:
        trainer.restore(saved)
        print(f"continuing {saved.path} at step {trainer.step}")
        del saved  # its tensors have been copied
    print(
        f"{output_dir}: at most {trainer.last_step} steps of {config.train.batch_size} samples on "
        f"{device}, {config.train.precision}; curves: tensorboard --logdir {output_dir}"
    )
    record_run(output_dir, config)
    checkpoint.remove_leftovers(output_dir)
    signal_number = trainer.run()
    return None if signal_number is None else 128 + signal_number


def record_run(output_dir: Path, config: Config) -> None:
    """Keep the resolved config, the command and the versions in the run folder."""
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join([sys.executable, *sys.argv]),
        "python": platform.python_version(),
    } | {name: version(name) for name in _LIBRARIES}
    with replacing(output_dir / "config.yaml") as temporary:
        temporary.write_text(dump_config(config))
    with (output_dir / "commands.jsonl").open("a") as file:  # a resumed run adds a line
        file.write(json.dumps(entry) + "\n")


def _part_resume(resume: str | None, overrides: list[str]) -> tuple[str | None, list[str]]:
    """`--resume key=value` means `--resume auto key=value`: the option took an override."""
    if resume is not None and re.match(r"[\w.]+=", resume) and not Path(resume).exists():
        return "auto", [*overrides, resume]
    return resume, overrides


def _newest_checkpoint(output_dir: Path) -> checkpoint.Checkpoint | None:
    saved, skipped = checkpoint.load_newest(output_dir)
    for message in skipped:
        print(message, file=sys.stderr)
    if saved is None:
        print(f"{output_dir}: no checkpoint to resume, starting at step 0")
    return saved


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__)
    parser.add_argument("--config", help="a YAML file, or the name of one in configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="change keys of the config"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="auto|PATH",
        help="continue from a checkpoint; auto (or no value): the newest of the run, if any",
    )
    parser.add_argument(
        "--init-from",
        metavar="PATH",
        help="start from the weights of a checkpoint, a published one too (fine-tuning)",
    )
    parser.add_argument("--print-config", action="store_true", help="show the config and stop")
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
