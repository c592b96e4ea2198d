"""Set up a run: read and check everything that train.py's options name, then build the trainer.

With several processes, each of them sets up the run, and they check that they have found the same.
Only rank 0 writes to the run folder.
"""

import argparse
import re
import sys
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from branches.model import Model
from checkpoints import checkpoint
from checkpoints.folder import list_steps
from checkpoints.load_report import describe_all, flatten, state_dicts
from checkpoints.perceptual_weights import load_perceptual
from checkpoints.weights import check_networks
from common.cli import pick_device, say
from common.distributed import processes as distributed
from common.errors import UserError
from common.safe_paths import exists
from configs.loading import dump_config, load_config, override_config
from configs.rules import division
from configs.schema import Config
from datasets.build import (
    build_pairs,
    build_source,
    clip_facts,
    leave_out_single_frames,
    preflight,
    share_num_frames,
)
from datasets.pairs import FramePairs
from datasets.source import ClipSource
from losses import Perceptual
from training.adversary import Adversary, all_networks, build_adversary
from training.auto_settings import resolve
from training.diagnosis import memory_advice
from training.run_folder import (
    RunRecord,
    claimed,
    clean,
    identify,
    record_command,
    write_record,
)
from training.trainer import Trainer


class Inputs(NamedTuple):
    """Everything that a run is built from, after it was read and checked.

    saved: the checkpoint that the run continues; None for a new run.
    """

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


@contextmanager
def set_up(arguments: argparse.Namespace) -> Iterator[Trainer | None]:
    """Context manager: builds the trainer; yields None if the options only ask for a printout.

    All processes build the same run. Within the block, rank 0 holds the lock of the run folder.
    """
    with ExitStack() as held:
        with distributed.shared_errors():
            inputs = read_inputs(arguments, held)
        if inputs is None:
            yield None
            return
        if distributed.world_size() > 1:
            with distributed.shared_errors():
                found = facts(inputs)
            distributed.check_agreement(found)
        share_num_frames(inputs.pairs.clips)
        with distributed.shared_errors():
            leave_out_single_frames(inputs.pairs, inputs.config)
            trainer = build_trainer(inputs)
        yield trainer


def read_inputs(arguments: argparse.Namespace, held: ExitStack) -> Inputs | None:
    """Read and check everything that the options name; None after --print-config.

    Args:
        held: receives the lock of the run folder, and releases it at its end.
    """
    resume, overrides = _split_resume(arguments.resume, arguments.overrides)
    saved = None if resume in (None, "auto") else checkpoint.load_to_resume(Path(resume))
    if arguments.config is not None:
        config = load_config(arguments.config, overrides)
    elif saved is not None:
        config = override_config(saved.config, overrides)
    else:
        raise UserError("--config is missing: give a file, or a name such as vox.yaml")
    if arguments.print_config:
        if distributed.is_main():
            print(dump_config(config), end="")
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
            distributed.say_once(f"{output_dir}: no checkpoint to resume, starting at step 0")
    elif saved is not None and (later := list_steps(output_dir, after=saved.step)):
        raise UserError(
            f"run.output_dir: {output_dir} already has later checkpoints ({later[0].name}); "
            "continue with --resume, or choose another folder with run.output_dir=..."
        )
    check_division(config)
    if saved is not None:
        check_optimizer(config, saved)

    device = pick_device(arguments.device, distributed.local_rank())
    pairs = build_pairs(config)
    test_clips = build_source(config.data, "test")
    if distributed.is_main():
        print(preflight(pairs.clips))
        # Metrics over fewer clips would not be comparable.
        print(preflight(test_clips, max_unreadable=0))
    if saved is not None:
        check_networks(lambda: _networks(config), saved.networks, saved.path)
    perceptual = load_perceptual(config)
    model, adversary = Model(config), build_adversary(config)
    if saved is None:
        _initialize(config, model, adversary, arguments.init_from or ())
    elif arguments.init_from is not None:
        paths = ", ".join(arguments.init_from)
        distributed.say_once(f"--init-from {paths}: left out, since the run continues from its own")
    return Inputs(
        config, saved, model, adversary, perceptual, pairs, test_clips, device, output_dir, record
    )


def _networks(config: Config) -> dict[str, nn.Module]:
    """All networks that `config` trains, by name, with their initial weights."""
    return all_networks(Model(config), build_adversary(config))


def _initialize(
    config: Config, model: Model, adversary: Adversary | None, paths: Sequence[str]
) -> None:
    """Give the networks of a new run the weights of the files of --init-from, one after the other.

    A later file replaces the tensors of an earlier one.
    """
    networks = all_networks(model, adversary)
    loaded: set[str] = set()
    reports = []
    for path in paths:
        report = checkpoint.init_from(networks, Path(path), config)
        text = report.after(loaded) if len(paths) > 1 else str(report)
        distributed.say_once(f"{path}: {text}")
        loaded |= {*report.loaded}
        reports.append(report)
    if len(paths) > 1:
        distributed.say_once(f"--init-from: {describe_all(networks, reports)}")
    check_frozen(model, loaded)


def check_optimizer(config: Config, saved: checkpoint.Checkpoint) -> None:
    """Check that a resumed run keeps its optimizer, which could not use the state of another one.

    Raises:
        UserError: it does not.
    """
    asked, before = config.train.optimizer, saved.config.train.optimizer
    if asked != before:
        raise UserError(
            f"train.optimizer: found {asked}, and {saved.path} was trained with {before}; set it "
            f"to {before}, or start a new run from its weights with --init-from"
        )


def check_frozen(model: Model, loaded: Collection[str]) -> None:
    """Check that no network of `model` would stay random because it is frozen.

    Args:
        loaded: names of the tensors that --init-from has set, with the names of their networks.

    Raises:
        UserError: names the networks, and says what to do.
    """
    frozen = model.networks.keys() - model.trained_networks.keys()
    names = flatten(state_dicts({name: model.networks[name] for name in frozen}))
    # No output depends on the number of batches that BatchNorm has seen, which old files lack.
    needed = {name for name in names if not name.endswith("num_batches_tracked")}
    missing = sorted({name.partition(".")[0] for name in needed - set(loaded)})
    if missing:
        raise UserError(
            f"motion.avd: {', '.join(missing)} would stay random, since only avd is trained; give "
            "a checkpoint of this model trained without motion.avd to --init-from"
        )


def check_division(config: Config) -> None:
    """Check that the batch can be divided equally between the processes.

    Raises:
        UserError: it cannot; names the key of the config.
    """
    for keys, reason in division(config, distributed.world_size()):
        raise UserError(f"{keys[0]}: {reason}")


def facts(inputs: Inputs) -> dict[str, object]:
    """Facts, by name, that must be the same in all processes of a run."""
    return {
        "step to continue from": inputs.saved.step if inputs.saved is not None else 0,
        "checksum of the config": zlib.crc32(dump_config(inputs.config).encode()),
        **clip_facts(inputs.pairs.clips),
        "device": inputs.device.type,
        "torch": version("torch"),
    }


def build_trainer(inputs: Inputs) -> Trainer:
    """Build the trainer, at the first step of a new run or at the next step of a resumed one.

    Prints a description of the run, and writes its record, config and command into its folder.
    """
    saved, output_dir = inputs.saved, inputs.output_dir
    resolved = resolve(inputs.config, inputs.device, None if saved is None else saved.numerics)
    config = resolved.config
    for line in (*resolved.warnings, resolved.line):
        distributed.say_once(line)
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
        distributed.say_once(f"continuing {saved.path} at step {trainer.step}")
        for note in saved.notes:
            distributed.say_once(f"{saved.path}: {note}")
    num_processes = distributed.world_size()
    shares = f" ({trainer.num_own_samples} on each of {num_processes} processes)"
    distributed.say_once(
        f"{output_dir}: at most {trainer.last_step} steps of {config.train.batch_size} samples"
        f"{shares if num_processes > 1 else ''} on {inputs.device}; "
        f"curves: tensorboard --logdir {output_dir}"
    )
    if distributed.is_main():
        write_record(output_dir, inputs.record)
        record_command(output_dir, inputs.config, resolved.record, distributed.world_size())
        clean(output_dir)
    return trainer


def _split_resume(resume: str | None, overrides: list[str]) -> tuple[str | None, list[str]]:
    """Split the value of --resume from the overrides.

    In `--resume key=value` the parser takes the override for the value of --resume; it means
    `--resume auto key=value`.
    """
    if resume is not None and re.match(r"[\w.]+=", resume) and not exists(Path(resume)):
        return "auto", [*overrides, resume]
    return resume, overrides


def _newest_checkpoint(output_dir: Path) -> checkpoint.Checkpoint | None:
    """The newest readable checkpoint of a run; prints which newer ones were skipped, and why."""
    saved, skipped = checkpoint.load_newest(output_dir)
    if distributed.is_main():
        for message in skipped:
            say(message, sys.stderr)
    return saved
