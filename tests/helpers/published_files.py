"""Files in the formats of the published FOMM and Perturbed Masks, with our small networks."""

from collections import OrderedDict
from pathlib import Path

import torch

from branches.model import Model
from configs.schema import Config
from modules.blocks import AntiAliasDownsample
from tests.helpers.factories import tiny_config
from training.adversary import build_adversary

PATCHES = (
    "discriminator.kind=patch",
    "discriminator.cut.kind=none",
    "discriminator.losses.decoder=0",
    "discriminator.generator_losses.decoder=0",
)


def motion_config(*overrides: str) -> Config:
    return tiny_config("masks=null", "background=null", *PATCHES, *overrides)


def masks_config(*overrides: str) -> Config:
    return tiny_config("motion=null", "background=null", "discriminator=null", *overrides)


def blur(scale: float = 0.5) -> torch.Tensor:
    """The blur kernel that published networks store: the same one for each colour."""
    kernel = AntiAliasDownsample(scale).kernel
    return torch.outer(kernel, kernel).expand(3, 1, -1, -1).clone()


def with_head(head: str, state) -> dict[str, torch.Tensor]:
    return {f"{head}{name}": tensor for name, tensor in state.items()}


def fomm_content(config: Config) -> dict:
    """The content of a published FOMM file, with the weights of our networks."""
    states = Model(config).state()
    adversary = build_adversary(config)
    assert adversary is not None
    detector = OrderedDict(states["keypoint_detector"] | {"down.weight": blur()})
    generator = with_head("dense_motion_network.", states["dense_motion"])
    generator |= {"dense_motion_network.down.weight": blur()} | states["generator"]
    # nn.Module.state_dict adds this attribute.
    detector._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter], lr=2e-4, betas=(0.5, 0.999))
    parameter.sum().backward()
    optimizer.step()
    return {
        "generator": generator,
        "discriminator": with_head("discs.1.", adversary.discriminator.state_dict()),
        "kp_detector": detector,
        "optimizer_generator": optimizer.state_dict(),
        "optimizer_discriminator": optimizer.state_dict(),
        "optimizer_kp_detector": optimizer.state_dict(),
        "epoch": 99,
    }


def masks_content(config: Config) -> dict:
    """The content of a published file of Perturbed Masks: L, H and R are in one state dict, with
    blocks that are never used.
    """
    states = Model(config).state()
    generator = states["low_resolution"] | states["high_resolution"] | states["refinement"]
    generator |= {"down_blocks.0.conv.weight": torch.ones(4, 3, 3, 3)}
    return {
        "generator": generator,
        "mask_generator": states["mask_generator"] | {"down.weight": blur()},
        "epoch": 99,
    }


CONTENTS = {"FOMM": (motion_config, fomm_content), "Perturbed Masks": (masks_config, masks_content)}


def write(path: Path, content, *, as_zip: bool = False) -> Path:
    """Save as torch before 1.6 did, which wrote no zip archives; most published files are such."""
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    assert path.read_bytes().startswith(b"PK") == as_zip
    return path
