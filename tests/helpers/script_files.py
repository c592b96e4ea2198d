"""TorchScript files of tiny extractors, written on the spot."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class MeanColours(nn.Module):
    """The means of the three channels: 3 features of frames or of clips."""

    def forward(self, images: Tensor) -> Tensor:
        return images.double().flatten(2).mean(2)


class FloatMeans(nn.Module):
    """The same, without a conversion: it refuses whole numbers."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(2).mean(2)


class Switched(nn.Module):
    """Like the field's files: without its switches it returns something else."""

    def forward(
        self,
        images: Tensor,
        rescale: bool = False,
        resize: bool = False,
        return_features: bool = False,
    ) -> Tensor:
        if not (rescale and resize and return_features):
            return images.double().flatten(1)[:, :2]
        return images.double().flatten(2).mean(2).unsqueeze(2).unsqueeze(3) / 255


class FirstAndLast(nn.Module):
    """Mean of red in the first and in the last frame of each clip, B x 3 x T x H x W."""

    def forward(self, images: Tensor) -> Tensor:
        red = images.double().mean(dim=(3, 4))[:, 0]
        return torch.stack((red[:, 0], red[:, -1]), dim=1)


class Returns(nn.Module):
    """Returns the wrong thing, chosen by `kind`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: Tensor) -> Tensor:
        means = images.double().flatten(1).mean(1, keepdim=True)
        if self.kind == "map":
            return images.double()
        if self.kind == "row":
            return means[0]
        if self.kind == "nan":
            return means * float("nan")
        if self.kind == "wide":
            return means.expand(len(images), 10000)
        raise RuntimeError("these images are too small")


class Pair(nn.Module):
    """Returns a tuple."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


def write_script(path: Path, network: nn.Module) -> Path:
    """Write `network` as TorchScript."""
    with warnings.catch_warnings(action="ignore"):  # torch would rather have torch.export
        torch.jit.script(network).save(str(path))
    return path
