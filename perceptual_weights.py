"""The perceptual network's weights: torchvision's, those of a file, or random ones."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models import VGG16_Weights, VGG19_Weights

from checkpoint import read_tensors
from config import Config
from errors import UserError
from load_report import show_shape
from losses import Perceptual, build_perceptual, perceptual_layers
from modules.vgg import VGGFeatures, relu_layers

_IMAGENET = {"vgg16": VGG16_Weights.IMAGENET1K_V1, "vgg19": VGG19_Weights.IMAGENET1K_V1}


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
        state, origin = read_tensors(Path(weights)), weights
    with torch.device("meta"):
        expected = VGGFeatures(network, relu_layers(network)).convs.state_dict()
    tensors = {}
    for name, like in expected.items():
        tensor = state.get(f"features.{name}") if isinstance(state, dict) else None
        if not isinstance(tensor, Tensor) or tensor.shape != like.shape:
            raise UserError(
                f"perceptual.weights: {origin} has no tensor features.{name} of "
                f"{show_shape(like)}; give a torchvision state dict of {network}"
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
