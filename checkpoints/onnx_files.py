"""Writes the networks of the motion branch as ONNX files, whose inputs and outputs are tensors."""

import importlib.util
import warnings
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from branches.motion.fomm import FommBranch
from common.errors import UserError
from common.files import replacing
from modules.dense_motion import DenseMotion, DenseMotionNetwork
from modules.generator import Generator
from modules.keypoint_detector import KeypointDetector, Keypoints

OPSET: Final = 20  # the first one whose GridSample has the mode `linear`, which torch writes
_PACKAGES = ("onnx", "onnxscript")


def require_packages() -> None:
    """Raise UserError if a package that writes ONNX is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--onnx needs {' and '.join(missing)}; install with: pip install -e '.[onnx]'"
        )


class _KeypointsOfFrame(nn.Module):
    def __init__(self, detector: KeypointDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        return tuple(_named(self.detector(frame)).values())


class _MotionOfKeypoints(nn.Module):
    def __init__(self, network: DenseMotionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        source: Tensor,
        source_value: Tensor,
        driving_value: Tensor,
        source_jacobian: Tensor | None = None,
        driving_jacobian: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        source_keypoints = Keypoints(source_value, source_jacobian)
        driving_keypoints = Keypoints(driving_value, driving_jacobian)
        motion = self.network(source, source_keypoints, driving_keypoints)
        return tuple(_named(motion).values())


class _PredictionOfMotion(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self, source: Tensor, deformation: Tensor, occlusion_map: Tensor | None = None
    ) -> Tensor:
        unused = deformation.new_empty(0)  # the generator does not use the motion weights
        return self.generator(source, DenseMotion(deformation, occlusion_map, unused))


def write_onnx(branch: FommBranch, size: tuple[int, int], folder: Path) -> list[Path]:
    """Write the networks of `branch`, in evaluation mode on the CPU, for images of `size`.

    size: (height, width).

    Returns:
        The files, in the order in which another program must run them.
    """
    # Example inputs. A batch of two, so that torch does not take its size for a constant; and no
    # tensor twice, since torch would take it for one input.
    source, driving = torch.zeros(2, 3, *size), torch.zeros(2, 3, *size)
    with torch.no_grad():
        source_keypoints = branch.keypoint_detector(source)
        driving_keypoints = branch.keypoint_detector(driving)
        motion = branch.dense_motion(source, source_keypoints, driving_keypoints)
    points, grids = _named(driving_keypoints), _named(motion)
    inputs = {"source": source}
    for name in points:
        inputs[f"source_{name}"] = getattr(source_keypoints, name)
        inputs[f"driving_{name}"] = points[name]
    used = {name: grid for name, grid in grids.items() if name != "motion_weights"}
    return [
        _write(
            _KeypointsOfFrame(branch.keypoint_detector),
            {"frame": driving},
            list(points),
            folder / "keypoint_detector.onnx",
        ),
        _write(
            _MotionOfKeypoints(branch.dense_motion),
            inputs,
            list(grids),
            folder / "dense_motion.onnx",
        ),
        _write(
            _PredictionOfMotion(branch.generator),
            {"source": source} | used,
            ["prediction"],
            folder / "generator.onnx",
        ),
    ]


def _write(network: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> Path:
    batch = torch.export.Dim("batch")
    # torch warns that the inputs share the name of their batch dimension, which is intended.
    with replacing(path) as temporary, warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            temporary,
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return path


def _named(output: Keypoints | DenseMotion) -> dict[str, Tensor]:
    """The fields that are not None, by name and in order."""
    return {name: tensor for name, tensor in output._asdict().items() if tensor is not None}
