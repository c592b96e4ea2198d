"""Train a model: python train.py --config vox.yaml [key.sub=value ...]

On several GPUs: torchrun --nproc-per-node 4 train.py --config vox.yaml ...
"""

import argparse
import json
import platform
import re
import shlex
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import common.openmp  # noqa: F401

import torch
from torch import nn

from branches.model import Model
from checkpoints import checkpoint
from checkpoints.folder import list_steps
from checkpoints.perceptual_weights import load_perceptual
from checkpoints.weights import check_networks
from common.cli import add_device_argument, pick_device, positive_int, run_entry_point
from common.errors import UserError
from common.files import add_line, replacing
from configs.loading import dump_config, load_config, override_config
from configs.schema import Config
from datasets.build import build_pairs, build_source, leave_out_single_frames, preflight
from datasets.clips import ClipFolder
from datasets.pairs import FramePairs
from datasets.source import ClipSource
from losses import Perceptual
from training.adversary import Adversary, build_adversary
from training.auto_settings import resolve
from training.diagnosis import memory_advice
from training.distributed import processes as distributed
from training.distributed.torchrun_agent import ending_with_agent
from training.run_folder import (
    COMMANDS_FILE,
    CONFIG_FILE,
    RunRecord,
    claimed,
    clean,
    identify,
    write_record,
)
from training.trainer import Trainer

_LIBRARIES = ("torch", "torchvision", "av", "numpy", "pydantic")


class Inputs(NamedTuple):
    """What a run is made of, as read from files; `saved` is the checkpoint that it continues."""

    config: Config
    saved: checkpoint.Checkpoint | None
    model: Model
    adversary: Adversary | None
    perceptual: Perceptual
    pairs: FramePairs
    test_clips: ClipSource
    device: torch.device
    output_dir: Path
    record: RunRecord


def main(arguments: argparse.Namespace) -> int | None:
    with (
        ending_with_agent(),
        distributed.process_group(arguments.join_timeout),
        set_up(arguments) as trainer,
    ):
        signal_number = None if trainer is None else trainer.run()
    return None if signal_number is None else 128 + signal_number


@contextmanager
def set_up(arguments: argparse.Namespace) -> Iterator[Trainer | None]:
    """The run that the options describe, in all processes the same; None if there is none. Within
    the block its folder belongs to rank 0.
    """
    with ExitStack() as held:
        with distributed.shared_errors():
            inputs = read_inputs(arguments, held)
        if inputs is None:
            yield None
            return
        distributed.check_agreement(facts(inputs))
        share_num_frames(inputs.pairs.clips)
        with distributed.shared_errors():
            leave_out_single_frames(inputs.pairs, inputs.config)
            trainer = build_trainer(inputs)
        yield trainer


def read_inputs(arguments: argparse.Namespace, held: ExitStack) -> Inputs | None:
    """Everything that the options name, checked; None if that was all there was to do.

    Args:
        held: gets the claim on the run folder.
    """
    resume, overrides = _part_resume(arguments.resume, arguments.overrides)
    saved = None if resume in (None, "auto") else checkpoint.load_to_resume(Path(resume))
    if arguments.config is not None:
        config = load_config(arguments.config, overrides)
    elif saved is not None:
        config = override_config(saved.config, overrides)
    else:
        raise UserError("--config is missing: give a file, or a name such as vox.yaml")
    if arguments.print_config:
        _say(dump_config(config).removesuffix("\n"))
        return None
    if config.run.output_dir is None:
        raise UserError("run.output_dir: found null; give a folder")
    output_dir = Path(config.run.output_dir)
    if distributed.is_main():
        held.enter_context(claimed(output_dir))
    if resume == "auto":
        saved = _newest_checkpoint(output_dir)
    record = identify(output_dir, saved)
    if resume == "auto":
        if saved is None:
            _say(f"{output_dir}: no checkpoint to resume, starting at step 0")
    elif saved is not None and (later := list_steps(output_dir, after=saved.step)):
        raise UserError(
            f"run.output_dir: {output_dir} already has later checkpoints ({later[0].name}); "
            "continue with --resume, or choose another folder with run.output_dir=..."
        )
    check_division(config)

    device = pick_device(arguments.device, distributed.local_rank())
    pairs = build_pairs(config)
    test_clips = build_source(config.data, "test")
    if distributed.is_main():
        print(preflight(pairs.clips))
        print(preflight(test_clips, max_unreadable=0))  # metrics over fewer clips are others
    if saved is not None:
        check_networks(lambda: _networks(config), saved.networks, saved.path)
    perceptual = load_perceptual(config)
    model, adversary = Model(config), build_adversary(config)
    if saved is not None and arguments.init_from is not None:
        _say(f"--init-from {arguments.init_from}: left out, since the run continues from its own")
    elif arguments.init_from is not None:
        networks = _all_networks(model, adversary)
        _say(f"{arguments.init_from}: {checkpoint.init_from(networks, Path(arguments.init_from))}")
    return Inputs(
        config, saved, model, adversary, perceptual, pairs, test_clips, device, output_dir, record
    )


def _networks(config: Config) -> dict[str, nn.Module]:
    """Every network that `config` trains, untrained."""
    return _all_networks(Model(config), build_adversary(config))


def _all_networks(model: Model, adversary: Adversary | None) -> dict[str, nn.Module]:
    return model.networks | (adversary.networks if adversary is not None else {})


def check_division(config: Config) -> None:
    """Make sure that every process can take an equal share of the batch.

    Raises:
        UserError: names the key.
    """
    size, num_processes = config.train.batch_size, distributed.world_size()
    share, rest = divmod(size, num_processes)
    if rest:
        raise UserError(
            f"train.batch_size: {size} samples cannot be divided among {num_processes} processes; "
            "it counts those of all processes together: set it to a multiple of their number"
        )
    at_once = config.train.micro_batch or share
    if share % at_once:
        raise UserError(
            f"train.micro_batch: found {at_once}; must divide the {share} samples that each of "
            f"{num_processes} processes takes of train.batch_size, {size}"
        )
    background = config.background
    if num_processes > 1 and background and background.foreign_probability > 0 and at_once == 1:
        raise UserError(
            f"background.foreign_probability: found {background.foreign_probability:g} with one "
            "sample of a batch in each process; the background of another sample comes from the "
            f"same process: set train.batch_size to at least {2 * num_processes}"
        )


def share_num_frames(clips: ClipSource) -> None:
    """Let all processes know what rank 0 has counted before training: it takes opening a clip."""
    if isinstance(clips, ClipFolder):
        # As pairs, since JSON has no numbers as keys.
        clips.known_num_frames = dict(distributed.gather([*clips.known_num_frames.items()])[0])


def facts(inputs: Inputs) -> dict[str, object]:
    """What all processes of a run must agree on."""
    names = "\n".join(clip.name for clip in inputs.pairs.clips.clips)
    return {
        "step to continue from": inputs.saved.step if inputs.saved is not None else 0,
        "checksum of the config": zlib.crc32(dump_config(inputs.config).encode()),
        "number of clips": len(inputs.pairs.clips.clips),
        "checksum of their names": zlib.crc32(names.encode()),
        "device": inputs.device.type,
        "torch": version("torch"),
    }


def build_trainer(inputs: Inputs) -> Trainer:
    """The run at its first step or, of a resumed one, the next; says what it will be."""
    saved, output_dir = inputs.saved, inputs.output_dir
    resolved = resolve(inputs.config, inputs.device, None if saved is None else saved.numerics)
    config = resolved.config
    for line in (*resolved.warnings, resolved.line):
        _say(line)
    with memory_advice(config, config.train.batch_size // distributed.world_size()):
        trainer = Trainer(
            config,
            inputs.model,
            inputs.adversary,
            inputs.perceptual,
            inputs.pairs,
            inputs.test_clips,
            inputs.device,
            output_dir,
            inputs.config,
            inputs.record,
        )
    if saved is not None:
        trainer.restore(saved)
        _say(f"continuing {saved.path} at step {trainer.step}")
        for note in saved.notes:
            _say(f"{saved.path}: {note}")
    num_processes = distributed.world_size()
    division = f" ({trainer.num_own_samples} on each of {num_processes} processes)"
    _say(
        f"{output_dir}: at most {trainer.last_step} steps of {config.train.batch_size} samples"
        f"{division if num_processes > 1 else ''} on {inputs.device}; "
        f"curves: tensorboard --logdir {output_dir}"
    )
    if distributed.is_main():
        write_record(output_dir, inputs.record)
        record_run(output_dir, inputs.config, resolved.record)
        clean(output_dir)
    return trainer


def record_run(output_dir: Path, config: Config, computing: Mapping[str, Any]) -> None:
    """Keep the config, the command, the versions and `auto_settings.Resolved.record` in the run
    folder.
    """
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join([sys.executable, *sys.argv]),
        "num_processes": distributed.world_size(),
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        "computing": dict(computing),
    }
    with replacing(output_dir / CONFIG_FILE) as temporary:
        temporary.write_text(dump_config(config))
    add_line(output_dir / COMMANDS_FILE, json.dumps(entry))  # a resumed run adds one


def _part_resume(resume: str | None, overrides: list[str]) -> tuple[str | None, list[str]]:
    """`--resume key=value` means `--resume auto key=value`: the option took an override."""
    if resume is not None and re.match(r"[\w.]+=", resume) and not Path(resume).exists():
        return "auto", [*overrides, resume]
    return resume, overrides


def _newest_checkpoint(output_dir: Path) -> checkpoint.Checkpoint | None:
    saved, skipped = checkpoint.load_newest(output_dir)
    if distributed.is_main():
        for message in skipped:
            print(message, file=sys.stderr)
    return saved


def _say(line: str) -> None:
    """Once, of several processes."""
    if distributed.is_main():
        print(line)


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
    parser.add_argument(
        "--join-timeout",
        type=positive_int,
        default=300,
        metavar="SECONDS",
        help="with torchrun: how long to wait at the start for all processes (default 300)",
    )
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
