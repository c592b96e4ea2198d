"""Checkpoints: reading and writing. Nothing else calls torch.save; `common/tensor_files.py` reads.

Where those of a run lie, and which are kept, is up to `checkpoints/folder.py`.

A checkpoint is one dict of tensors and plain containers, so it loads without unpickling code.
`published/` knows those of other projects, `older_formats.py` the earlier formats of ours, and
`export.py` slims one for sharing. Ours has:

    format      version of this layout
    config      the resolved config, plain containers
    step, epoch, batch   steps done; epoch and batch of the next one
    planned_steps        of the whole run, where the start of a part follows from it; else None
    run_id      of the run that wrote it (training/run_folder.py); older and slim ones have none
    networks    state dict of each network, by name; in a slim one those that animate
    average     the same for the moving average, without the discriminator, or None
    training    optimizer, scaler, counters, and what the log has not told yet; what only a resumed
                run needs. A slim one has none
    metrics     validation metrics, where this step was validated
    provenance  in a slim one: where the weights are from
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
from checkpoints.file_checks import check_content, check_states
from checkpoints.folder import checkpoint_folder, list_steps
from checkpoints.load_report import LoadReport, compare, flatten, state_dicts
from checkpoints.published.conversion import PROJECTS, convert, problems, wrong_kind
from checkpoints.published.layout import Published
from common.errors import in_one_line
from common.files import WatchedFile, replacing
from common.tensor_files import CheckpointError, read_tensors
from configs.loading import parse_config
from configs.schema import Config, Start

CHECKPOINT_FORMAT = 2
_CONTENT = ("step", "epoch", "batch", "networks", "average", "training", "metrics")


class Checkpoint(NamedTuple):
    """A checkpoint in memory; see the file's docstring.

    report: of a published file, what of it is used for evaluation; None for ours.
    notes: of one that an earlier version wrote, what changes for a run that continues from it.
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
        """How long it was trained, in words."""
        if "published" not in self.provenance:
            return f"step {self.step}"
        epoch = self.provenance.get("epoch")
        return f"{self.provenance['published']}" + ("" if epoch is None else f", epoch {epoch}")

    @property
    def numerics(self) -> dict[str, Any]:
        """The precision and the memory layout in which it was trained; of older files as their
        config says.
        """
        train = self.config.train
        by_config = {"precision": train.precision, "channels_last": train.channels_last}
        return self.training.get("numerics", by_config)

    @property
    def evaluation_networks(self) -> dict[str, dict[str, Tensor]]:
        """The weights to use for evaluation: the moving average where there is one; without the
        discriminator, which only trains.
        """
        if self.average is not None:
            return self.average["networks"]
        return {name: state for name, state in self.networks.items() if name != "discriminator"}

    @property
    def untrained(self) -> dict[str, Start]:
        """What of `config.starts` has not seen a step: its networks are as they began."""
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
        UserError: it cannot be written, on a full disk for example.
    """
    _write(
        path,
        config,
        {
            "step": step,
            "epoch": epoch,
            "batch": batch,
            "planned_steps": planned_steps,
            "run_id": run_id,
            "networks": state_dicts(networks),
            "average": average,
            "training": training,
            "metrics": dict(metrics),
        },
    )


def save_slim(path: Path, slim: Checkpoint) -> None:
    """Write what `export.slim` left of a checkpoint, as `save` does."""
    content = {key: getattr(slim, key) for key in (*_CONTENT, "planned_steps", "provenance")}
    _write(path, slim.config, content)


def _write(path: Path, config: Config, content: dict[str, Any]) -> None:
    content = {
        "format": CHECKPOINT_FORMAT,
        "config": config.model_dump(),
        **content,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        _save_to(file, content)
        file.flush()
        os.fsync(file.fileno())


def _save_to(file: IO[bytes], content: dict[str, Any]) -> None:
    """Raises OSError where the system refuses, on a full disk for example; torch itself tells of
    that by a RuntimeError without the reason.
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
        config: of a published file, which has none of its own; ours have one.

    Raises:
        CheckpointError: missing, damaged, a git-lfs pointer, pickled code, or another layout; a
            published file without its config or with a wrong one; a config for one of ours.
    """
    content = read_tensors(path)
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
        CheckpointError: as `load`, or it has nothing but weights.
    """
    content = read_tensors(path)
    saved = None if _convert(path, content) is not None else _parse(path, content)
    if saved is None or not saved.training:
        raise CheckpointError(
            f"{path}: has the weights alone, no optimizer, and cannot be resumed; start a new run "
            "from it with --init-from"
        )
    return saved


def _convert(path: Path, content: Any) -> Published | None:
    """A published file in our layout; None if it is none."""
    try:
        published = convert(content)
        if published is not None:
            check_states("networks", published.tensors.networks)
        return published
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: it looks like a published checkpoint, but its tensors are of other kinds and "
            f"shapes ({in_one_line(error)})"
        ) from error


def _parse(path: Path, content: Any) -> Checkpoint:
    """One of ours."""
    keys = content.keys() if isinstance(content, dict) else set()
    readable = (*older_formats.FORMATS, CHECKPOINT_FORMAT)
    if keys >= {"format", "config"} and content["format"] not in readable:
        raise CheckpointError(
            f"{path}: checkpoint format {content['format']!r}; this code reads "
            f"{' and '.join(map(str, readable))}: use the code version that wrote it"
        )
    if not keys >= {"format", "config", *_CONTENT}:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project, nor a published one of "
            f"{', '.join(PROJECTS)}; choose one of train.py's"
        )
    try:
        check_content(content)
    except ValueError as error:
        raise CheckpointError(f"{path}: not a checkpoint that train.py wrote: {error}") from error
    notes = [] if content["format"] == CHECKPOINT_FORMAT else older_formats.upgrade(content)
    return Checkpoint(
        path,
        parse_config(content["config"], origin=str(path)),
        provenance=content.get("provenance", {}),
        planned_steps=content.get("planned_steps"),
        run_id=content.get("run_id"),
        notes=notes,
        **{key: content[key] for key in _CONTENT},
    )


def _trained(path: Path, published: Published, config: Config | None) -> Checkpoint:
    """A published one; it counts as trained to the end."""
    if config is None:
        raise CheckpointError(
            f"{path}: published by {published.project}, without a config; give the one of its data "
            f"set, such as --config {published.config}"
        )
    wrong = problems(published, config)
    if wrong:
        raise CheckpointError(
            f"--config does not fit {path}: {'; '.join(wrong)}; give the config of its data set, "
            f"such as --config {published.config}"
        )
    saved = Checkpoint(
        path,
        config,
        step=0,
        epoch=config.train.epochs,
        batch=0,
        networks=published.tensors.networks,
        average=None,
        training={},
        metrics={},
        provenance={"published": published.project, "epoch": published.epoch},
    )
    used = saved.evaluation_networks
    idle = {name: state for name, state in saved.networks.items() if name not in used}
    loaded = [name for name in flatten(used) if name not in published.tensors.added]
    # Nothing is missing: `load_networks` would refuse it.
    report = LoadReport(loaded, [], [*flatten(idle), *published.tensors.unused], [])
    return saved._replace(report=report)


def init_from(networks: Mapping[str, nn.Module], path: Path, config: Config) -> LoadReport:
    """Fine-tuning: copy every tensor that fits, and say which ones did.

    Of a model it is the moving average that is used, so that goes on; the discriminator has none.

    Args:
        config: of the run that starts, which `networks` are from.

    Raises:
        CheckpointError: nothing fits, or the file is a published one of another kind.
    """
    content = read_tensors(path)
    published = _convert(path, content)
    added: list[str] = []
    if published is not None:
        kind = wrong_kind(published, config)
        if kind is not None:
            raise CheckpointError(
                f"--init-from {path}: published by {published.project}: {kind}; give a config such "
                f"as {published.config}"
            )
        states, _, added, unused = published.tensors
    else:
        saved = _parse(path, content)
        states, unused = saved.networks | saved.evaluation_networks, []
    if "discriminator" not in networks:  # left out on purpose, so not worth a word
        states.pop("discriminator", None)
    report = compare(networks, states)
    report = report._replace(unused=report.unused + unused)
    if not report.loaded:
        raise CheckpointError(f"{path}: no tensor fits this config's networks")
    own, given = flatten(state_dicts(networks)), flatten(states)
    for name in report.loaded:
        own[name].copy_(given[name])  # a state dict shares memory with its network
    return report._replace(loaded=[name for name in report.loaded if name not in added])


def load_newest(output_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest readable checkpoint of a run, and a message for each damaged one skipped.

    Raises:
        CheckpointError: there are checkpoints, but none can be read.
        UserError: their folder cannot be listed.
    """
    messages: list[str] = []
    for path in list_steps(output_dir):
        try:
            return load_to_resume(path), messages
        except CheckpointError as error:
            messages.append(f"skipped: {error}")
    if messages:
        raise CheckpointError(f"{checkpoint_folder(output_dir)}: no readable one; {messages[0]}")
    return None, messages
