"""Checkpoints: the only file that calls torch.save and torch.load.

A checkpoint is one dict of tensors and plain containers, so it loads without unpickling code:

    format      version of this layout
    config      the resolved config, plain containers
    step, epoch, batch   steps done; epoch and batch of the next one
    networks    state dict of each network, by name
    average     the same for the moving average, without the discriminator, or None
    training    optimizer, scaler and counters; what only a resumed run needs
    metrics     validation metrics, where this step was validated
    versions    of Python and torch
"""

import os
import pickle
import platform
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, VGG19_Weights

from config import Config
from config_file import parse_config
from errors import UserError
from files import GIT_LFS_POINTER, replacing
from losses import Perceptual, build_perceptual, perceptual_layers
from modules.vgg import VGGFeatures, relu_layers

FORMAT_VERSION = 1
_STEP_FILE = re.compile(r"step-(\d{8})\.pt")
_ZIP = b"PK"
_IMAGENET = {"vgg16": VGG16_Weights.IMAGENET1K_V1, "vgg19": VGG19_Weights.IMAGENET1K_V1}


class CheckpointError(UserError):
    """A file that is no checkpoint, is damaged, or does not fit the config."""


class Checkpoint(NamedTuple):
    """A checkpoint in memory; see the file's docstring."""

    path: Path
    config: Config
    step: int
    epoch: int
    batch: int
    networks: dict[str, dict[str, Tensor]]
    average: dict[str, Any] | None
    training: dict[str, Any]
    metrics: dict[str, float]

    @property
    def evaluation_networks(self) -> dict[str, dict[str, Tensor]]:
        """The weights to use for evaluation: the moving average where there is one; without the
        discriminator, which only trains.
        """
        if self.average is not None:
            return self.average["networks"]
        return {name: state for name, state in self.networks.items() if name != "discriminator"}

    @property
    def untrained(self) -> dict[str, int]:
        """What of `config.start_epochs` has not seen a step: its networks are as they began."""
        starts = self.config.start_epochs.items()
        return {key: start for key, start in starts if (self.epoch, self.batch) <= (start, 0)}


def save(
    path: Path,
    config: Config,
    networks: Mapping[str, nn.Module],
    *,
    step: int,
    epoch: int,
    batch: int,
    average: dict[str, Any] | None,
    training: dict[str, Any],
    metrics: Mapping[str, float],
) -> None:
    """Write a checkpoint; a reader sees the old file or the whole new one, never a part."""
    content = {
        "format": FORMAT_VERSION,
        "config": config.model_dump(),
        "step": step,
        "epoch": epoch,
        "batch": batch,
        "networks": _states(networks),
        "average": average,
        "training": training,
        "metrics": dict(metrics),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> Checkpoint:
    """Read a checkpoint to the CPU.

    Raises:
        CheckpointError: missing, damaged, a git-lfs pointer, pickled code, or another layout.
    """
    content = _load_tensors(path)
    keys = content.keys() if isinstance(content, dict) else set()
    if keys >= {"format", "config"} and content["format"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: checkpoint format {content['format']!r}; this code reads "
            f"{FORMAT_VERSION}: use the code version that wrote it"
        )
    if not keys >= {"format", *Checkpoint._fields[1:]}:
        raise CheckpointError(f"{path}: not a checkpoint of this project; choose one of train.py's")
    return Checkpoint(
        path,
        parse_config(content["config"], origin=str(path)),
        *(content[key] for key in Checkpoint._fields[2:]),
    )


def load_networks(
    networks: Mapping[str, nn.Module], states: dict[str, dict[str, Tensor]], path: Path
) -> None:
    """Put the weights of `states`, read from `path`, into `networks`, all of them.

    Raises:
        CheckpointError: another architecture; names the first tensors that differ.
    """
    absent, further = networks.keys() - states.keys(), states.keys() - networks.keys()
    if absent or further:
        found = [f"no {name}" for name in sorted(absent)] + sorted(further)
        raise CheckpointError(
            f"{path}: checkpoint of other networks than the config's: it has "
            f"{', '.join(found)}; use the config that it was trained with, or start a new run with "
            "--init-from"
        )
    report = compare(networks, states)
    if report.problems:
        raise CheckpointError(
            f"{path}: checkpoint of another architecture: {_shorten(report.problems)}; "
            "use the config that it was trained with, or start a new run with --init-from"
        )
    for name, network in networks.items():
        network.load_state_dict(states[name])


class LoadReport(NamedTuple):
    """Full tensor names: what was or can be loaded, what is missing, unused, of another shape."""

    loaded: list[str]
    missing: list[str]
    unused: list[str]
    reshaped: list[str]

    @property
    def problems(self) -> list[str]:
        return [
            *self.reshaped,
            *(f"{name} is missing" for name in self.missing),
            *(f"{name} is not in the model" for name in self.unused),
        ]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded"]
        for label in ("missing", "unused", "reshaped"):
            names = getattr(self, label)
            if names:
                lines.append(f"{len(names)} {label}: {_shorten(names)}")
        return "; ".join(lines)


def compare(networks: Mapping[str, nn.Module], states: dict[str, dict[str, Tensor]]) -> LoadReport:
    """Which tensors of `states` fit into `networks`."""
    own, given = _flatten(_states(networks)), _flatten(states)
    same = {name for name in own.keys() & given.keys() if own[name].shape == given[name].shape}
    return LoadReport(
        loaded=[name for name in own if name in same],
        missing=[name for name in own if name not in given],
        unused=[name for name in given if name not in own],
        reshaped=[
            f"{name} is {_shape(given[name])} in the file and {_shape(own[name])} in the model"
            for name in own
            if name in given and name not in same
        ],
    )


def init_from(networks: Mapping[str, nn.Module], path: Path) -> LoadReport:
    """Fine-tuning: copy every tensor that fits, and say which ones did.

    Of a model it is the moving average that is used, so that goes on; the discriminator has none.

    Raises:
        CheckpointError: nothing fits.
    """
    saved = load(path)
    states = saved.networks | saved.evaluation_networks
    if "discriminator" not in networks:  # left out on purpose, so not worth a word
        states.pop("discriminator", None)
    report = compare(networks, states)
    if not report.loaded:
        raise CheckpointError(f"{path}: no tensor fits this config's networks")
    own, given = _flatten(_states(networks)), _flatten(states)
    for name in report.loaded:
        own[name].copy_(given[name])  # a state dict shares memory with its network
    return report


def checkpoint_folder(output_dir: Path) -> Path:
    return output_dir / "checkpoints"


def step_path(output_dir: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies in a run folder."""
    return checkpoint_folder(output_dir) / f"step-{step:08d}.pt"


def best_path(output_dir: Path) -> Path:
    """Where the checkpoint with the lowest validation L1 lies in a run folder."""
    return checkpoint_folder(output_dir) / "best.pt"


def remove_leftovers(output_dir: Path) -> None:
    """Delete what a run that was killed while it saved has left."""
    for path in checkpoint_folder(output_dir).glob(".*.tmp.pt"):
        path.unlink(missing_ok=True)


def run_folder(path: Path) -> Path:
    """The folder of the run that wrote the checkpoint `path`; if it lies elsewhere, its own."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def list_steps(output_dir: Path, after: int = -1) -> list[Path]:
    """Checkpoints of a run later than step `after`, the newest first."""
    files = checkpoint_folder(output_dir).glob("step-*.pt")
    matches = [match for path in files if (match := _STEP_FILE.fullmatch(path.name))]
    steps = sorted((int(match[1]) for match in matches), reverse=True)
    return [step_path(output_dir, step) for step in steps if step > after]


def load_newest(output_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest readable checkpoint of a run, and a message for each torn one skipped.

    Raises:
        CheckpointError: there are checkpoints, but none can be read.
    """
    messages: list[str] = []
    for path in list_steps(output_dir):
        try:
            return load(path), messages
        except CheckpointError as error:
            messages.append(f"skipped: {error}")
    if messages:
        raise CheckpointError(f"{checkpoint_folder(output_dir)}: no readable one; {messages[0]}")
    return None, messages


def prune(newest: Path, keep: int) -> None:
    """Delete all but `keep` checkpoints, counted backwards from `newest`.

    best.pt is another file and stays; so does a later one, torn and skipped when the run resumed,
    until it is written again.
    """
    files = list_steps(run_folder(newest))
    for path in files[files.index(newest) + keep :]:
        path.unlink(missing_ok=True)


def keep_best(output_dir: Path, path: Path) -> None:
    """Make best.pt a copy of the checkpoint at `path`."""
    with replacing(best_path(output_dir)) as temporary:
        shutil.copyfile(path, temporary)


def load_perceptual(config: Config) -> Perceptual:
    """The feature pyramid of all branches; weights are read only where a layer is used.

    Raises:
        UserError: as `load_vgg`.
    """
    layers, weights = perceptual_layers(config), None
    if layers:
        weights = load_vgg(config.perceptual.network, config.perceptual.weights)
    return build_perceptual(config.perceptual, layers, weights)


def load_vgg(network: str, weights: str) -> dict[str, Tensor] | None:
    """Convolutions of a VGG as `features.N` names without their prefix; None for `random`.

    Args:
        network: vgg16 or vgg19.
        weights: `perceptual.weights`: imagenet (torchvision downloads and caches it), random, or
            the path of a torchvision state dict.

    Raises:
        UserError: the download failed, or the file is not such a state dict.
    """
    if weights == "random":
        return None
    if weights == "imagenet":
        source = _IMAGENET[network]
        state: Any = _download(source)
        origin = source.url
    else:
        state, origin = _load_tensors(Path(weights)), weights
    with torch.device("meta"):
        expected = VGGFeatures(network, relu_layers(network)).convs.state_dict()
    tensors = {}
    for name, like in expected.items():
        tensor = state.get(f"features.{name}") if isinstance(state, dict) else None
        if not isinstance(tensor, Tensor) or tensor.shape != like.shape:
            raise UserError(
                f"perceptual.weights: {origin} has no tensor features.{name} of "
                f"{_shape(like)}; give a torchvision state dict of {network}"
            )
        tensors[name] = tensor.float()
    return tensors


def _download(source: VGG16_Weights | VGG19_Weights) -> Any:
    try:
        return source.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; another hash
        name = source.url.rsplit("/", 1)[-1]
        digest = name.rsplit("-", 1)[-1].removesuffix(".pth")
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"perceptual.weights: imagenet: {source.url} could not be downloaded ({error}); put "
            f"{name} (sha256 begins with {digest}) into {folder}, or set perceptual.weights to "
            "its path"
        ) from error


def _load_tensors(path: Path) -> Any:
    """Unpickle tensors and plain containers only, to the CPU."""
    try:
        with path.open("rb") as file:
            head = file.read(len(GIT_LFS_POINTER))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if head == GIT_LFS_POINTER:
        raise CheckpointError(f"{path}: a git-lfs pointer, not the file itself; run `git lfs pull`")
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no checkpoint breaks the reader in any number of ways
        if not head.startswith(_ZIP):
            raise CheckpointError(f"{path}: not a checkpoint") from error
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f"{path}: holds pickled code, which is not run; only tensors and plain containers "
                "are read"
            ) from error
        raise CheckpointError(f"{path}: damaged or truncated; use an earlier checkpoint") from error


def _states(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    return {name: network.state_dict() for name, network in networks.items()}


def _flatten(networks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {
        f"{network}.{name}": tensor
        for network, state in networks.items()
        for name, tensor in state.items()
    }


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


def _shorten(names: list[str], limit: int = 3) -> str:
    rest = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
