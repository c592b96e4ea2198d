"""Loads the weights of the perceptual network: torchvision's, those of a file, or random ones."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import VGG16_Weights, VGG19_Weights

from checkpoints.file_checks import is_plain
from checkpoints.load_report import show_shape
from common.errors import UserError
from common.tensor_files import read_tensors
from common.weight_files import check_sha256, digits_in_name, downloaded
from configs.schema import Config
from losses import Perceptual, build_perceptual, perceptual_layers
from modules.vgg import VGGFeatures, relu_layers

_IMAGENET = {"vgg16": VGG16_Weights.IMAGENET1K_V1, "vgg19": VGG19_Weights.IMAGENET1K_V1}


def load_perceptual(config: Config) -> Perceptual:
    """Build the feature pyramid that all branches share; weights are read only if a layer is used.

    Raises:
        UserError: as `load_vgg`.
    """
    layers, weights = perceptual_layers(config), None
    if layers:
        weights = load_vgg(config.perceptual.network, config.perceptual.weights)
    return build_perceptual(config.perceptual, layers, weights)


def load_vgg(network: str, weights: str) -> dict[str, Tensor] | None:
    """Read the convolutions of a VGG network; None for `random`.

    The names are those of torchvision's state dict without the prefix `features.`.

    Args:
        network: vgg16 or vgg19.
        weights: the key `perceptual.weights`: imagenet (downloaded from torchvision and cached),
            random, or the path of a torchvision state dict.

    Raises:
        UserError: the download failed, the file is not such a state dict, or its SHA-256 is not
            the one in its name.
    """
    if weights == "random":
        return None
    origin, path = _locate(network, weights)
    state = read_tensors(path)
    with torch.device("meta"):
        expected = VGGFeatures(network, relu_layers(network)).convs.state_dict()
    tensors = {}
    for name, like in expected.items():
        tensor = state.get(f"features.{name}") if isinstance(state, dict) else None
        if not is_plain(tensor) or tensor.shape != like.shape:
            raise UserError(
                f"perceptual.weights: {origin} has no tensor features.{name} of "
                f"{show_shape(like)}; give a torchvision state dict of {network}"
            )
        tensors[name] = tensor.float()
    return tensors


def _locate(network: str, weights: str) -> tuple[str, Path]:
    """Return the name of the weights for messages, and their file.

    The file is checked if its SHA-256 is known.
    """
    url = _IMAGENET[network].url
    if weights == "imagenet":
        try:
            return url, downloaded(url)
        except UserError as error:
            raise UserError(
                f"perceptual.weights: imagenet: {error}, or set perceptual.weights to its path"
            ) from error
    path = Path(weights)
    digits = digits_in_name(path.name)
    if digits is not None and url.endswith(f"/{path.name}"):
        check_sha256(path, digits, "give another file to perceptual.weights")
    return weights, path
