"""Networks that give the features of FID and FVD: a TorchScript file of the user's, or one of
torchvision's by name.

A TorchScript file holds a program as well as weights, and this program runs when the file is used:
only a file that its user trusts may be given. Its SHA-256 is part of every result.
"""

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import Inception_V3_Weights, WeightsEnum, inception_v3
from torchvision.models.video import (
    MC3_18_Weights,
    R2Plus1D_18_Weights,
    R3D_18_Weights,
    mc3_18,
    r2plus1d_18,
    r3d_18,
)

from common.errors import UserError, in_one_line, lacks_memory
from common.files import file_sha256
from common.safe_paths import open_to_read
from common.tensor_files import read_tensors
from common.weight_files import downloaded
from metrics.detectors.detector import Description
from metrics.frechet import FrechetMetric

FVD_LENGTH: Final = 16  # frames of a clip of FVD by default, as most papers have it
MAX_FEATURES: Final = 8192  # numbers of a feature; a covariance of so many takes 512 MiB

# What the field takes, for messages.
SOURCES: Final[dict[FrechetMetric, str]] = {
    "fid": (
        "the field's is Inception-v3 of 2015-12-05 as TorchScript, inception-2015-12-05.pt, at "
        "nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics; or give inception_v3, "
        "which is torchvision's"
    ),
    "fvd": (
        "the field's is I3D of Kinetics-400 as TorchScript, i3d_torchscript.pt, to which "
        "github.com/universome/stylegan-v links; or give r3d_18, mc3_18 or r2plus1d_18, which are "
        "torchvision's"
    ),
}
# Switches that files of the field have: to scale 8-bit numbers, to resize, and to return features
# instead of classes. Each is turned on where the network has it.
_SWITCHES: Final = ("rescale", "resize", "return_features")
_ZIP: Final = b"PK"


class Extractor(Protocol):
    """Computes features of frames (FID) or of clips (FVD).

    description: says how, for results.
    sha256: of the file with the weights.
    """

    description: Description
    sha256: str

    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        """Features, B x D, of uint8 images from 0 to 255: frames, B x 3 x H x W, or clips,
        B x 3 x T x H x W.

        Raises:
            UserError: the network refuses them, or returns something else.
        """
        ...


class ScriptExtractor:
    """The network of the TorchScript file `path`. It gets images from 0 to 255 and must resize and
    scale them by itself, as the published ones do: as uint8 or, if it refuses that, as float32.

    Args:
        metric: what it is for, which messages name as the option.

    Raises:
        UserError: the file is missing or holds something else.
    """

    def __init__(self, path: Path, metric: FrechetMetric, device: torch.device) -> None:
        self._origin = f"--{metric} {path}"
        self._device = device
        self._dtypes = [torch.uint8, torch.float32]  # to try; then the one that works
        self.sha256 = _check_file(path, self._origin, metric)
        try:
            with warnings.catch_warnings(action="ignore"):  # torch would rather have torch.export
                self._network = torch.jit.load(str(path), map_location=device).eval()
            names = {argument.name for argument in self._network.forward.schema.arguments}
        except Exception as error:  # a damaged file can raise anything
            raise UserError(
                f"{self._origin}: cannot be read as TorchScript: {in_one_line(error):.200}"
            ) from error
        self._switches = {name: True for name in _SWITCHES if name in names}
        called = ", ".join(f"{name}=True" for name in self._switches)
        self.description = Description(
            name="TorchScript",
            weights=f"sha256 {self.sha256}",
            convention=(
                "images from 0 to 255, resized and scaled by the network itself"
                + (f", which is called with {called}" if called else "")
            ),
            licence="that of the file",
        )

    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        """See `Extractor.__call__`."""
        problem: Exception | None = None
        for dtype in self._dtypes:
            try:
                # Without this torch compiles the network anew while it runs, with other rounding.
                with torch.jit.optimized_execution(False):
                    features = self._network(images.to(self._device, dtype), **self._switches)
            except Exception as error:  # whatever the program in the file raises
                if lacks_memory(error):
                    raise
                problem = problem or error
            else:
                self._dtypes = [dtype]
                return _checked(features, images, self._origin)
        *_, reason = str(problem).strip().splitlines() or [type(problem).__name__]
        raise UserError(
            f"{self._origin}: the network refuses images of {_shape(images)} from 0 to 255 "
            f"({reason:.200}); it must resize and scale them by itself"
        ) from problem


class _Torchvision(NamedTuple):
    """One of torchvision's classifiers: `build` makes it untrained, `weights` are for it."""

    build: Callable[[], nn.Module]
    weights: WeightsEnum
    data: str


def _inception() -> nn.Module:
    # transform_input would undo a normalization that torchvision's own transforms make.
    return inception_v3(weights=None, init_weights=False, transform_input=False)


_KINETICS: Final = "Kinetics-400"
TORCHVISION: Final[dict[FrechetMetric, dict[str, _Torchvision]]] = {
    "fid": {
        "inception_v3": _Torchvision(_inception, Inception_V3_Weights.IMAGENET1K_V1, "ImageNet"),
    },
    "fvd": {
        "r3d_18": _Torchvision(r3d_18, R3D_18_Weights.KINETICS400_V1, _KINETICS),
        "mc3_18": _Torchvision(mc3_18, MC3_18_Weights.KINETICS400_V1, _KINETICS),
        "r2plus1d_18": _Torchvision(r2plus1d_18, R2Plus1D_18_Weights.KINETICS400_V1, _KINETICS),
    },
}
# Inception's inputs are from -1 to 1, as it was trained before torchvision published it.
_CENTRED: Final = ([0.5] * 3, [0.5] * 3)


class TorchvisionExtractor:
    """A classifier of torchvision without its last layer. Whole frames are resized (bilinear,
    antialiased) to the size that it was trained at, without a crop.

    Args:
        network: the classifier; its layer `fc` is removed.
        size: height and width of its inputs.
        mean, std: of the three channels, by which its inputs are normalized.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        size: tuple[int, int],
        mean: list[float],
        std: list[float],
        data: str,
        sha256: str,
        device: torch.device,
    ) -> None:
        network.fc = nn.Identity()
        self._network = network.eval().requires_grad_(False).to(device)
        self._size, self._device = size, device
        self._mean, self._std = (
            torch.tensor(numbers, device=device).view(3, 1, 1) for numbers in (mean, std)
        )
        self.sha256 = sha256
        height, width = size
        self.description = Description(
            name=f"torchvision's {name}",
            weights=f"trained on {data}, sha256 {sha256}",
            convention=(
                f"input of the last layer; frames resized to {width} x {height} (bilinear, "
                "antialiased). Published numbers come from another network and do not compare"
            ),
            licence=f"BSD-3-Clause; trained on {data}",
        )

    @classmethod
    def trained(
        cls, name: str, metric: FrechetMetric, device: torch.device
    ) -> "TorchvisionExtractor":
        """Build it with the weights that torchvision publishes; they are downloaded once.

        Raises:
            UserError: the download failed, or the file in the cache is not the published one.
        """
        build, weights, data = TORCHVISION[metric][name]
        network, path = build(), downloaded(weights.url)
        network.load_state_dict(read_tensors(path))
        transforms = weights.transforms()
        height, width = (*transforms.crop_size, *transforms.crop_size)[:2]  # one number: a square
        mean, std = _CENTRED if name == "inception_v3" else (transforms.mean, transforms.std)
        return cls(
            name,
            network,
            size=(height, width),
            mean=mean,
            std=std,
            data=data,
            sha256=file_sha256(path),
            device=device,
        )

    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        """See `Extractor.__call__`."""
        is_clip = images.ndim == 5
        frames = images.to(self._device)
        if is_clip:  # each frame by itself, B T x 3 x H x W
            frames = frames.transpose(1, 2).flatten(0, 1)
        resized = F.interpolate(
            frames.float() / 255,
            size=self._size,
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        inputs = (resized - self._mean) / self._std
        if is_clip:
            inputs = inputs.unflatten(0, (len(images), -1)).transpose(1, 2)
        return _checked(self._network(inputs), images, self.description.name)


def build_extractor(given: str, metric: FrechetMetric, device: torch.device) -> Extractor:
    """Build the extractor that the option --fid or --fvd names: a file, or a torchvision name.

    A file of such a name must be given as ./r3d_18: its program would run, and it may have come
    into this folder with the data of somebody else.

    Raises:
        UserError: the file cannot be used, or a download failed.
    """
    if given in TORCHVISION[metric]:
        try:
            return TorchvisionExtractor.trained(given, metric, device)
        except UserError as error:
            raise UserError(f"--{metric} {given}: {error}") from error
    if any(given in names for names in TORCHVISION.values()):
        raise UserError(
            f"--{metric} {given}: torchvision's network of this name is for another measure; "
            f"{SOURCES[metric]}; a file of this name must be given as ./{given}"
        )
    return ScriptExtractor(Path(given), metric, device)


def _check_file(path: Path, origin: str, metric: FrechetMetric) -> str:
    """Make sure that `path` is a TorchScript archive, and return its SHA-256."""
    try:
        with open_to_read(path) as file:
            is_archive = file.read(len(_ZIP)) == _ZIP
        names = zipfile.ZipFile(path).namelist() if is_archive else []
        digest = file_sha256(path)
    except FileNotFoundError as error:
        raise UserError(f"{origin}: no such file; {SOURCES[metric]}") from error
    except OSError as error:
        raise UserError(f"{origin}: cannot be read ({error.strerror})") from error
    except UserError as error:
        raise UserError(f"--{metric} {error}") from None
    except Exception as error:  # a damaged archive can raise anything in the reader
        raise UserError(f"{origin}: damaged or truncated; fetch it again") from error
    if not any(name.endswith("/constants.pkl") for name in names):
        raise UserError(
            f"{origin}: not TorchScript; a file of tensors alone does not say which network they "
            f"are for: {SOURCES[metric]}"
        )
    return digest


def _checked(features: object, images: Tensor, origin: str) -> NDArray[np.float64]:
    """Bring what a network returned to B x D, in float64.

    Raises:
        UserError: it is something else, or not finite.
    """
    if not isinstance(features, Tensor):
        found = type(features).__name__
        raise UserError(f"{origin}: returns a {found}; must return one tensor of features")
    shape = tuple(features.shape)
    if features.ndim < 2 or shape[0] != len(images) or any(side != 1 for side in shape[2:]):
        raise UserError(
            f"{origin}: returns {_shape(features)} for images of {_shape(images)}; must return one "
            "row of features for each, such as after global pooling"
        )
    if shape[1] > MAX_FEATURES:
        raise UserError(f"{origin}: returns {shape[1]} features; at most {MAX_FEATURES} are taken")
    values = features.flatten(1).double().cpu().numpy()
    if not np.isfinite(values).all():
        raise UserError(f"{origin}: returns numbers that are not finite")
    return values


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
