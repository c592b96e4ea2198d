"""Reads and writes checkpoints, and describes what they contain.

No other code of this project calls torch.save; the files are read by `content.py`.
`folder.py` says where the checkpoints of a run lie and which are kept, `published/` converts
those of other projects, `older_formats.py` upgrades earlier formats, and `export.py` writes slim
checkpoints for sharing, which have no training state.

A checkpoint is one dict of tensors and plain containers, so it loads without unpickling code. A
slim one may also be a safetensors file, without any pickle:

    format      version of this layout
    config      the config after bases and overrides, every `auto` kept
    step, epoch, batch   steps done; epoch and batch of the next step
    planned_steps        steps planned for the run, if the start of a part depends on it; else None
    run_id      id of the run that wrote it (training/run_folder.py); older and slim ones have none
    networks    state dict of each network, by name; in a slim one of those used in animation
    average     the same for the moving average, of the networks that the model trains; or None
    training    state that only a resumed run needs: optimizer, scaler, counters, and statistics
                that are not in the log yet; empty in a slim one
    metrics     validation metrics, if this step was validated
    provenance  in a slim one: where the weights come from, and `dtype` if they are in float16
    versions    of Python and torch
"""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor, nn

from checkpoints import older_formats
from checkpoints.content import read_content, to_safetensors
from checkpoints.file_checks import check_content, check_states
from checkpoints.folder import checkpoint_folder, list_steps, step_of
from checkpoints.half_weights import to_float32
from checkpoints.load_report import LoadReport, compare, flatten, state_dicts
from checkpoints.published.conversion import (
    PROJECTS,
    convert,
    fitting_config,
    problems,
    wrong_branch,
)
from checkpoints.published.layout import Published
from common.errors import in_one_line
from common.files import WatchedFile, replacing
from common.safetensors_files import SUFFIX
from common.tensor_files import CheckpointError
from configs.loading import parse_config
from configs.schema import Config, Start

CHECKPOINT_FORMAT = 2
_CONTENT = ("step", "epoch", "batch", "networks", "average", "training", "metrics")
# What code raises when a part of a file is of another kind or shape than it expects.
_WRONG_CONTENT = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)


class Checkpoint(NamedTuple):
    """A checkpoint in memory; the fields are described at the top of this file.

    report: for a published file, which of its tensors evaluation uses; None for our own.
    notes: for a file of an earlier version, what changes for a run that continues from it.
    """

    path: Path
    config: Config
    step: int
    epoch: int
    batch: int
    networks: dict[str, dict[str, Tensor]]
    average: dict[str, Any] | None
    training: dict[str, Any]
    metrics: dict[str, float]
    provenance: dict[str, Any]
    planned_steps: int | None = None
    run_id: str | None = None
    report: LoadReport | None = None
    notes: Sequence[str] = ()

    @property
    def age(self) -> str:
        """Say how long the weights were trained: `step 1000` or `FOMM, epoch 99`."""
        if "published" not in self.provenance:
            return f"step {self.step}"
        epoch = self.provenance.get("epoch")
        return f"{self.provenance['published']}" + ("" if epoch is None else f", epoch {epoch}")

    @property
    def stored(self) -> str:
        """Say in what kind of numbers the file stores its weights, unless they are float32."""
        return f"weights in {self.provenance['dtype']}" if "dtype" in self.provenance else "weights"

    @property
    def numerics(self) -> dict[str, Any]:
        """The precision and memory layout of the training; in older files those of the config."""
        train = self.config.train
        by_config = {  # earlier versions had no `auto`
            "precision": "float32" if train.precision == "auto" else train.precision,
            "channels_last": train.channels_last is True,
        }
        return self.training.get("numerics", by_config)

    @property
    def evaluation_networks(self) -> dict[str, dict[str, Tensor]]:
        """The weights to use for evaluation: the moving average if there is one.

        Frozen networks have no average. The discriminator is left out, because only training
        needs it.
        """
        networks = {n: state for n, state in self.networks.items() if n != "discriminator"}
        return networks if self.average is None else networks | self.average["networks"]

    @property
    def untrained(self) -> dict[str, Start]:
        """The entries of `config.starts` that no step has trained: they have initial weights."""
        if "published" in self.provenance:  # its networks are all there, trained to the end
            return {}
        place = (self.step, self.epoch, self.batch, self.planned_steps)
        starts = self.config.starts.items()
        return {section: start for section, start in starts if not start.has_learned(*place)}


def save(
    path: Path,
    config: Config,
    networks: Mapping[str, nn.Module],
    *,
    step: int,
    epoch: int,
    batch: int,
    planned_steps: int | None = None,
    run_id: str | None = None,
    average: dict[str, Any] | None,
    training: dict[str, Any],
    metrics: Mapping[str, float],
) -> None:
    """Write a checkpoint; a reader sees the old file or the whole new one, never a part.

    Raises:
        UserError: the file cannot be written, for example on a full disk.
    """
    content = {
        "step": step,
        "epoch": epoch,
        "batch": batch,
        "planned_steps": planned_steps,
        "run_id": run_id,
        "networks": state_dicts(networks),
        "average": average,
        "training": training,
        "metrics": dict(metrics),
    }
    with replacing(path) as temporary:
        _write(temporary, config, content)


def save_slim(path: Path, slim: Checkpoint) -> None:
    """Write a checkpoint that `export.slim` returned to `path`, a temporary file of `replacing`.

    A path that ends in `.safetensors` becomes such a file.

    Raises:
        OSError: the file cannot be written.
        UserError: the package safetensors is not installed.
    """
    content = {key: getattr(slim, key) for key in (*_CONTENT, "planned_steps", "provenance")}
    _write(path, slim.config, content)


def _write(path: Path, config: Config, content: dict[str, Any]) -> None:
    content = {
        "format": CHECKPOINT_FORMAT,
        "config": config.model_dump(),
        **content,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    safe = to_safetensors(content) if path.suffix == SUFFIX else None
    with path.open("wb") as file:
        if safe is None:
            _save_to(file, content)
        else:
            file.write(safe)
        file.flush()
        os.fsync(file.fileno())


def _save_to(file: IO[bytes], content: dict[str, Any]) -> None:
    """Save to an open file.

    Raises:
        OSError: the system refuses to write, for example on a full disk. torch itself would raise
            a RuntimeError without the reason.
    """
    watched = WatchedFile(file)
    try:
        torch.save(content, watched)  # type: ignore[arg-type]
    except RuntimeError as error:
        if watched.error is None:
            raise
        raise watched.error from error


def load(path: Path, config: Config | None = None) -> Checkpoint:
    """Read a checkpoint to the CPU.

    Args:
        config: the config for a published file, which contains none; our own files contain theirs.

    Raises:
        CheckpointError: the file is missing, damaged, a git-lfs pointer, pickled code or of another
            layout; `config` is missing or wrong for a published file, or given for one of ours.
    """
    content = read_content(path)
    published = _convert(path, content)
    if published is not None:
        return _trained(path, published, config)
    saved = _parse(path, content)
    if config is not None:
        raise CheckpointError(f"--config: {path} has its own config in it; leave the option out")
    return saved


def load_to_resume(path: Path) -> Checkpoint:
    """Read a checkpoint that a run can continue from.

    Raises:
        CheckpointError: as `load`, or the file holds weights only.
    """
    content = read_content(path)
    saved = None if _convert(path, content) is not None else _parse(path, content)
    if saved is None or not saved.training:
        raise CheckpointError(
            f"{path}: has weights but no optimizer state, and cannot be resumed; start a new run "
            "from it with --init-from"
        )
    return saved


def _convert(path: Path, content: Any) -> Published | None:
    """Convert a published file to our layout; None if it is not a published file."""
    try:
        published = convert(content)
        if published is not None:
            check_states("networks", published.tensors.networks)
        return published
    except _WRONG_CONTENT as error:
        raise CheckpointError(
            f"{path}: it looks like a published checkpoint, but its tensors are of other kinds and "
            f"shapes ({in_one_line(error)})"
        ) from error


def _parse(path: Path, content: Any) -> Checkpoint:
    """Check the content of one of our own checkpoints."""
    keys = content.keys() if isinstance(content, dict) else set()
    readable = (*older_formats.FORMATS, CHECKPOINT_FORMAT)
    version = content["format"] if keys >= {"format", "config"} else CHECKPOINT_FORMAT
    if type(version) is not int or version not in readable:  # tensors are compared as tensors
        raise CheckpointError(
            f"{path}: checkpoint format {version!r:.40}; this code reads "
            f"{' and '.join(map(str, readable))}: use the code version that wrote it"
        )
    if not keys >= {"format", "config", *_CONTENT}:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project, nor a published one of "
            f"{', '.join(PROJECTS)}; choose one of train.py's"
        )
    try:
        check_content(content)
        published = content.get("provenance", {}).get("published")
        if published is not None and published not in PROJECTS:
            raise ValueError(f"provenance.published is none of {', '.join(PROJECTS)}")
    except ValueError as error:
        raise CheckpointError(f"{path}: not a checkpoint that train.py wrote: {error}") from error
    notes = [] if content["format"] == CHECKPOINT_FORMAT else _upgrade(path, content)
    content["networks"] = to_float32(content["networks"], path)
    return Checkpoint(
        path,
        parse_config(content["config"], origin=str(path)),
        provenance=content.get("provenance", {}),
        planned_steps=content.get("planned_steps"),
        run_id=content.get("run_id"),
        notes=notes,
        **{key: content[key] for key in _CONTENT},
    )


def _upgrade(path: Path, content: dict[str, Any]) -> list[str]:
    """Upgrade the content of an older format, whose config has not been checked yet."""
    try:
        return older_formats.upgrade(content)
    except (*_WRONG_CONTENT, StopIteration) as error:
        raise CheckpointError(
            f"{path}: states checkpoint format {content['format']}, but is not as such a version "
            f"wrote it ({in_one_line(error)}); use another checkpoint"
        ) from error


def _trained(path: Path, published: Published, config: Config | None) -> Checkpoint:
    """Make a checkpoint of a published file; it counts as trained to the end."""
    if config is None:
        raise CheckpointError(
            f"{path}: published by {published.project}, without a config; give the one of its data "
            f"set, such as --config {fitting_config(published)}"
        )
    wrong = problems(published, config)
    if wrong:
        raise CheckpointError(
            f"--config does not fit {path}: {'; '.join(wrong)}; give the config of its data set, "
            f"such as --config {fitting_config(published)}"
        )
    saved = Checkpoint(
        path,
        config,
        step=0,
        epoch=config.train.epochs,
        batch=0,
        networks=to_float32(published.tensors.networks, path),
        average=None,
        training={},
        metrics={},
        provenance={"published": published.project, "epoch": published.epoch},
    )
    used = saved.evaluation_networks
    idle = {name: state for name, state in saved.networks.items() if name not in used}
    loaded = [name for name in flatten(used) if name not in published.tensors.added]
    # No list of missing tensors: `load_networks` refuses a file where one is missing.
    report = LoadReport(loaded, [], [*flatten(idle), *published.tensors.unused], [])
    return saved._replace(report=report)


def init_from(networks: Mapping[str, nn.Module], path: Path, config: Config) -> LoadReport:
    """Start fine-tuning: copy every tensor that fits into `networks`, and report which ones did.

    The tensors come from the moving average if the file has one, since that is the model that is
    used; those of the discriminator, which has no average, from its weights.

    Args:
        config: of the run that starts, which `networks` are from.

    Raises:
        CheckpointError: no tensor fits, the file is a published one of a branch or motion model
            that the config does not have, or it has untrained networks that would be frozen.
    """
    content = read_content(path)
    published = _convert(path, content)
    added: list[str] = []
    if published is not None:
        reason = wrong_branch(published, config)
        if reason is not None:
            raise CheckpointError(
                f"--init-from {path}: published by {published.project}: {reason}; give a config "
                f"such as {fitting_config(published)}"
            )
        states, _, added, unused = published.tensors
    else:
        saved = _parse(path, content)
        states, unused = saved.networks | saved.evaluation_networks, []
        if config.is_frozen:
            _check_all_trained(saved, config)
    if "discriminator" not in networks:  # left out on purpose, so it is not reported as unused
        states.pop("discriminator", None)
    report = compare(networks, states)
    report = report._replace(unused=report.unused + unused)
    if not report.loaded:
        raise CheckpointError(f"{path}: no tensor fits this config's networks")
    own, given = flatten(state_dicts(networks)), flatten(states)
    for name in report.loaded:
        own[name].copy_(given[name])  # a state dict shares memory with its network
    loaded = [name for name in report.loaded if name not in added]
    return report._replace(loaded=loaded, added=added)


def _check_all_trained(saved: Checkpoint, config: Config) -> None:
    """Raise CheckpointError if the run of `config` freezes a part that `saved` has not trained."""
    for section, start in saved.untrained.items():
        branch = section.partition(".")[0]
        if branch in config.branches:
            raise CheckpointError(
                f"--init-from {saved.path}: at step {saved.step}, {section} has not started "
                f"({start}), and motion.avd would freeze it; train on first"
            )


def load_newest(output_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """Read the newest checkpoint of a run that is neither damaged nor of another step than named.

    Returns:
        The checkpoint, or None if the run has none; a message for each one skipped.

    Raises:
        CheckpointError: there are checkpoints, but none can be read.
        UserError: the folder cannot be listed.
    """
    messages: list[str] = []
    for path in list_steps(output_dir):
        try:
            saved = load_to_resume(path)
        except CheckpointError as error:
            messages.append(f"skipped: {error}")
            continue
        if saved.step == step_of(path.name):
            return saved, messages
        # A run would begin at that step again, whenever it is resumed.
        messages.append(
            f"skipped: {path}: holds step {saved.step}, not that of its name; rename it"
        )
    if messages:
        raise CheckpointError(
            f"{checkpoint_folder(output_dir)}: no readable checkpoint; {messages[0]}"
        )
    return None, messages
