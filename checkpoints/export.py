"""Slim a checkpoint for sharing: python -m checkpoint export CHECKPOINT --output model.pt

The result has the networks that animate, the config and the metrics, and loads like any checkpoint;
it cannot be resumed. Beside it lies model.json, which says what it is. With --onnx DIR the networks
of the motion branch are written for other programs, for images of the size of the training and any
batch:

    keypoint_detector.onnx   frame -> value, jacobian
    dense_motion.onnx        source, source_value, driving_value, source_jacobian, driving_jacobian
                             -> deformation, occlusion_map, motion_weights
    generator.onnx           source, deformation, occlusion_map -> prediction

Shapes and ranges are those of modules/. A detector without Jacobians, or a dense motion without
occlusion, leaves these out.
"""

import argparse
import hashlib
import importlib.util
import json
import warnings
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor, nn

from animation.branch_animators import load_model
from branches.motion import MotionBranch
from checkpoints import checkpoint
from checkpoints.checkpoint import Checkpoint
from common.cli import run_entry_point
from common.errors import UserError
from common.files import replacing
from configs.loading import load_config
from modules.dense_motion import DenseMotion, DenseMotionNetwork
from modules.generator import Generator
from modules.keypoint_detector import KeypointDetector, Keypoints

Weights = Literal["average", "raw"]
WEIGHTS: Final[tuple[Weights, ...]] = ("average", "raw")

OPSET: Final = 20  # the first whose GridSample knows `linear`, as torch writes it
_PACKAGES = ("onnx", "onnxscript")


def main(arguments: argparse.Namespace) -> None:
    path, output = Path(arguments.checkpoint), Path(arguments.output)
    description = output.with_suffix(".json")
    if description == output:
        raise UserError(f"--output {output}: the .json stands beside it; give model.pt")
    for written in (output, description):
        if written.resolve() == path.resolve():
            raise UserError(f"--output {output} would replace {path}; choose another path")
    if arguments.onnx is not None:
        require_packages()
    config = None if arguments.config is None else load_config(arguments.config)
    small = slim(checkpoint.load(path, config), arguments.weights)
    model = load_model(small, torch.device("cpu"))  # shows that the weights fit the config
    if arguments.onnx is not None and model.motion is None:
        raise UserError(f"--onnx: {path} has no motion branch, the one that is written")

    checkpoint.save_slim(output, small)
    described = describe(small, output)
    with replacing(description) as temporary:
        temporary.write_text(json.dumps(described, indent=2) + "\n")
    print(f"{output}: {small.age}, {described['weights']} weights, {described['bytes']:,} bytes")
    print(f"sha256 {described['sha256']}")
    if arguments.onnx is not None and model.motion is not None:
        for file in write_onnx(model.motion, small.config.data.size, Path(arguments.onnx)):
            print(file)


def slim(saved: Checkpoint, weights: Weights | None = None) -> Checkpoint:
    """`saved` with nothing but what animates.

    Args:
        weights: the moving average or those that were trained; by default what `saved` would be
            evaluated with.

    Raises:
        UserError: it has no such weights.
    """
    held: list[Weights] = ["raw"] if saved.average is None else ["average", "raw"]
    if "weights" in saved.provenance:  # already slim
        held = [saved.provenance["weights"]]
    chosen = weights or held[0]
    if chosen not in held:
        raise UserError(
            f"--weights {chosen}: {saved.path} has {held[0]} weights alone; leave the option out"
        )
    raw = saved._replace(average=None)
    networks = (saved if chosen == held[0] else raw).evaluation_networks
    return raw._replace(
        networks=networks,
        training={},
        metrics=saved.metrics if chosen == held[0] else {},  # they are of the evaluated weights
        provenance=saved.provenance | {"weights": chosen, "exported_from": saved.path.name},
    )


def describe(small: Checkpoint, path: Path) -> dict[str, object]:
    """What the file at `path`, written of `small`, holds; for people and scripts."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    run = small.config.run.output_dir
    return {
        "file": path.name,
        "config": None if run is None else Path(run).name,
        "step": small.step,
        "metrics": small.metrics,
        **small.provenance,
        "sha256": digest,
        "bytes": path.stat().st_size,
    }


# ONNX: networks with tensors alone going in and out


def require_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--onnx needs {' and '.join(missing)}; install with: "
            "pip install -r requirements-export.txt"
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
        unused = deformation.new_empty(0)  # the generator asks for no weights
        return self.generator(source, DenseMotion(deformation, occlusion_map, unused))


def write_onnx(branch: MotionBranch, size: tuple[int, int], folder: Path) -> list[Path]:
    """Write the networks of `branch`, in evaluation mode on the CPU, for images of `size`.

    Returns:
        The files, in the order in which they are run.
    """
    # Examples: two of each, so that the batch is not taken for a constant, and no tensor twice,
    # which would be taken for one input.
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
    # torch warns that inputs share the name of their batch, as they should.
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
    """The tensors that are there, in order."""
    return {name: tensor for name, tensor in output._asdict().items() if tensor is not None}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("export",))
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--output", required=True, metavar="PATH", help="model.pt")
    parser.add_argument("--config", metavar="FILE", help="of a published checkpoint")
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        help="the moving average (default, where there is one) or the weights as they were trained",
    )
    parser.add_argument("--onnx", metavar="DIR", help="also write the motion branch as ONNX")
    return parser


def run() -> int:
    return run_entry_point(main, build_parser())
