"""Writes files as other projects published them, with the weights of our small networks."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from branches.model import Model
from checkpoints.checkpoint import Checkpoint, load
from checkpoints.published import fomm, monkey_net, perturbed_masks, tpsmm, x2face
from checkpoints.published.layout import Place
from configs.schema import Config
from modules.blocks import AntiAliasDownsample
from tests.helpers.factories import tiny_config
from tests.helpers.old_torch_files import write_old_file
from training.adversary import build_adversary

States = Mapping[str, Mapping[str, Tensor]]  # state dicts by our networks, or by published parts


class Project(NamedTuple):
    """A project that published files.

    name: the name in messages.
    kind: `motion.kind` of its networks; None for the mask branch.
    fitting: the config that messages suggest.
    overrides: they make its tiny networks of the tiny config.
    make_content: makes the content of a file from the state dicts of our networks.
    """

    name: str
    kind: str | None
    fitting: str
    overrides: tuple[str, ...]
    make_content: Callable[[States], dict[str, Any]]

    def config(self, *overrides: str) -> Config:
        """Config of its tiny networks, changed by `overrides`."""
        return tiny_config(*self.overrides, *overrides)

    def content(self, config: Config) -> dict[str, Any]:
        """Content of a file with the weights that training with `config` starts from."""
        return self.make_content(all_states(config))


def all_states(config: Config) -> dict[str, dict[str, Tensor]]:
    """State dicts of the model and the discriminator, by network.

    Statistics of BatchNorm are random, as after some steps of training.
    """
    networks = Model(config).networks
    adversary = build_adversary(config)
    if adversary is not None:
        networks |= adversary.networks
    random = torch.Generator().manual_seed(0)
    for network in networks.values():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1, generator=random)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=random)
    return {name: network.state_dict() for name, network in networks.items()}


def published_name(places: Sequence[Place], network: str, name: str) -> tuple[str, str]:
    """Return part and name, in a published file, of the tensor `name` of our `network`."""
    for place in places:
        if place.network == network and name.startswith(place.own_head):
            return place.part, place.head + name.removeprefix(place.own_head)
    raise KeyError(f"{network}.{name}")


def x2face_name(network: str, name: str, num_levels: int) -> str:
    """Return the name, in a file of X2Face, of the tensor `name` of our `network`."""
    match = re.fullmatch(r"unet\.(down|up)_blocks\.(\d+)\.(conv|norm)\.(\w+)", name)
    assert match is not None, name
    side, index, layer, tensor = match.groups()
    level = int(index) if side == "down" else num_levels - 1 - int(index)
    positions = {"up.conv": "up.2", "up.norm": "up.3", "down.conv": "down.1", "down.norm": "down.2"}
    position = "down.0" if (side, level) == ("down", 0) else positions[f"{side}.{layer}"]
    (part,) = (part for part, own in x2face.NETWORKS.items() if own == network)
    return f"{part}.netG.model{'.submodule' * level}.{position}.{tensor}"


def blur(scale: float = 0.5) -> Tensor:
    """The blur kernel that published networks store, 3 x 1 x size x size: one for each colour."""
    kernel = AntiAliasDownsample(scale).kernel
    return torch.outer(kernel, kernel).expand(3, 1, -1, -1).clone()


def published_parts(states: States, places: Sequence[Place]) -> dict[str, dict[str, Tensor]]:
    """Sort the tensors of our networks by part and name in a published file."""
    parts: dict[str, dict[str, Tensor]] = {}
    for network, state in states.items():
        for name, tensor in state.items():
            part, published = published_name(places, network, name)
            parts.setdefault(part, {})[published] = tensor
    return parts


def _adam_state() -> dict[str, Any]:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter], lr=2e-4, betas=(0.5, 0.999))
    parameter.sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def _fomm_content(states: States) -> dict[str, Any]:
    parts = published_parts(states, fomm.PLACES)
    detector = OrderedDict(parts["kp_detector"] | {"down.weight": blur()})
    # nn.Module.state_dict adds this attribute, and torch.save writes it.
    detector._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    generator = {"dense_motion_network.down.weight": blur()} | parts["generator"]
    adam = _adam_state()
    optimizers = {f"optimizer_{part}": adam for part in ("generator", "discriminator")}
    return {
        **parts,
        "generator": generator,
        "kp_detector": detector,
        **optimizers,
        "optimizer_kp_detector": adam,
        "epoch": 99,
    }


def _masks_content(states: States) -> dict[str, Any]:
    """One state dict contains L, H and R, and blocks that the published code never uses."""
    parts = published_parts(states, perturbed_masks.PLACES)
    return {
        "generator": parts["generator"] | {"down_blocks.0.conv.weight": torch.ones(4, 3, 3, 3)},
        "mask_generator": parts["mask_generator"] | {"down.weight": blur()},
        "epoch": 99,
    }


def monkey_net_kernel(tensor: Tensor) -> Tensor:
    """Add the third axis, of size 1, that kernels for clips have; keep other tensors."""
    return tensor.unsqueeze(2) if tensor.ndim == 4 else tensor


def _monkey_net_content(states: States) -> dict[str, Any]:
    parts = {
        part: {name: monkey_net_kernel(tensor) for name, tensor in state.items()}
        for part, state in published_parts(states, monkey_net.PLACES).items()
    }
    optimizers = {f"optimizer_{part}": _adam_state() for part in parts}
    return {**parts, **optimizers, "epoch": 99, "it": 1234}


def _x2face_content(states: States) -> dict[str, Any]:
    """There is no epoch, nor BatchNorm's counters of batches, which PyTorch has since 0.4.1."""
    state = OrderedDict()
    for network, own in states.items():
        num_levels = sum(name.endswith("conv.weight") for name in own) // 2
        for name, tensor in own.items():
            if not name.endswith("num_batches_tracked"):
                state[x2face_name(network, name, num_levels)] = tensor
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=1e-3, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    group = {"lr": 1e-3, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False}
    # At that time optimizers named a parameter by its address in memory.
    buffers = {
        140_000_000_000_000: {"momentum_buffer": optimizer.state[parameter]["momentum_buffer"]}
    }
    groups = [group | {"params": [*buffers]}]
    return {"state_dict": state, "optimizer": {"state": buffers, "param_groups": groups}}


def _tpsmm_content(states: States) -> dict[str, Any]:
    parts = published_parts(states, tpsmm.PLACES)
    parts["dense_motion_network"]["down.weight"] = blur()
    adam = _adam_state()
    return {**parts, "optimizer": adam, "optimizer_bg_predictor": adam, "epoch": 99}


MOTION_ALONE = ("masks=null", "background=null")
PATCHES = (
    "discriminator.kind=patch",
    "discriminator.cut.kind=none",
    "discriminator.losses.decoder=0",
    "discriminator.generator_losses.decoder=0",
)
FOMM = Project("FOMM", "fomm", "vox-fomm.yaml", (*MOTION_ALONE, *PATCHES), _fomm_content)
PERTURBED_MASKS = Project(
    "Perturbed Masks",
    None,
    "vox-masks.yaml",
    ("motion=null", "background=null", "discriminator=null"),
    _masks_content,
)
MONKEY_NET = Project(
    "Monkey-Net",
    "monkey_net",
    "vox-monkey-net.yaml",
    (
        *MOTION_ALONE,
        "motion.kind=monkey_net",
        "motion.keypoint_detector={width: 4, max_width: 16, num_blocks: 2, scale: 0.5}",
        "motion.keypoint_detector.num_keypoints=4",
        "motion.dense_motion={width: 4, max_width: 8, num_blocks: 2, scale: 0.5}",
        "motion.generator={width: 4, max_width: 16, num_blocks: 3, num_res_blocks: 1}",
        *PATCHES,
        "discriminator.kind=monkey_net",
        "discriminator.keypoints=true",
        "discriminator.spectral_norm=false",
    ),
    _monkey_net_content,
)
X2FACE = Project(
    "X2Face",
    "x2face",
    "vox-x2face.yaml",
    (
        *MOTION_ALONE,
        "discriminator=null",
        "motion.kind=x2face",
        "motion.embedding={width: 4, max_width: 8, num_levels: 5, code: 6}",
        "motion.driving={width: 4, max_width: 32, num_levels: 4, code: 5}",
    ),
    _x2face_content,
)
TPSMM = Project(
    "TPSMM",
    "tpsmm",
    "vox-tpsmm.yaml",
    (
        *MOTION_ALONE,
        "discriminator=null",
        "motion.kind=tpsmm",
        "motion.keypoint_detector.num_plates=2",
        "motion.dense_motion={width: 4, max_width: 16, num_blocks: 2, scale: 0.5}",
        "motion.inpainting={width: 4, max_width: 8, num_down_blocks: 2}",
        "motion.background_motion.start_epoch=0",
    ),
    _tpsmm_content,
)
PROJECTS = (FOMM, PERTURBED_MASKS, MONKEY_NET, X2FACE, TPSMM)


class PublishedFile(NamedTuple):
    """A published file that tests only read, and the config that its weights are from."""

    project: Project
    config: Config
    path: Path

    def load(self, *overrides: str) -> Checkpoint:
        """Load the file with its config, changed by `overrides`."""
        return load(self.path, self.project.config(*overrides))


def write(path: Path, content: Any, *, as_zip: bool = False) -> Path:
    """Save as torch before 1.6 did, which wrote most published files, or as a zip archive."""
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    assert path.read_bytes().startswith(b"PK") == as_zip
    return path


def write_published(path: Path, project: Project, content: Any) -> Path:
    """Write a file as the torch of its time did.

    Those of X2Face are from torch 0.2 under Python 2, those of TPSMM are zip archives.
    """
    if project is X2FACE:
        return write_old_file(path, content)
    return write(path, content, as_zip=project is TPSMM)
