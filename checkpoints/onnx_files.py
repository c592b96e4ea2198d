"""Writes the networks of the motion branch as ONNX files, whose inputs and outputs are tensors."""

import importlib.util
import inspect
import warnings
from pathlib import Path
from typing import Final

import torch

from branches.motion.branch import MotionBranch
from checkpoints.onnx_networks import Exported, exported_networks
from common.errors import UserError
from common.files import replacing

OPSET: Final = 20  # the first one whose GridSample has the mode `linear`, which torch writes
_PACKAGES = ("onnx", "onnxscript")


def require_packages() -> None:
    """Raise UserError if a package that writes ONNX is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--onnx needs {' and '.join(missing)}; install with: pip install -e '.[onnx]'"
        )


def write_onnx(branch: MotionBranch, size: tuple[int, int], folder: Path) -> list[Path]:
    """Write the networks of `branch`, in evaluation mode on the CPU, for images of `size`.

    size: (height, width).

    Returns:
        The files, in the order in which another program must run them.
    """
    return [
        _write(exported, folder / f"{exported.name}.onnx")
        for exported in exported_networks(branch, size)
    ]


def _write(exported: Exported, path: Path) -> Path:
    # An optional package, and slow to import.
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    # torch warns that the inputs share the name of their batch dimension, which is intended.
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            exported.network.eval(),
            tuple(exported.inputs.values()),
            input_names=list(exported.inputs),
            output_names=exported.outputs,
            opset_version=OPSET,
            dynamic_shapes=_dynamic_batch(exported),
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None, "dynamo=True returns one"
    # Constants are folded, so that a runtime can fuse BatchNorm with convolutions. The rest of
    # torch's own optimization is left out: it drops the addition of any number up to 1e-8 as one of
    # 0, and r log(r + 1e-9) of a thin plate would become 0 log 0.
    fold_constants(program.model)
    remove_unused_nodes(program.model)
    with replacing(path) as temporary:
        program.save(temporary, external_data=False)
    return path


def _dynamic_batch(exported: Exported) -> tuple[object, ...]:
    """The dynamic shapes of the inputs: one entry for each argument of `forward`.

    A variable number of arguments counts as one entry, which is a tuple.
    """
    batch = {0: torch.export.Dim("batch")}
    parameters = inspect.signature(exported.network.forward).parameters.values()
    fixed = sum(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters)
    number = len(exported.inputs)
    shapes: tuple[object, ...] = (batch,) * min(number, fixed)
    return (*shapes, (batch,) * (number - fixed)) if number > fixed else shapes
