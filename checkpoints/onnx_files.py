"""Writes the networks of the motion branch as ONNX files, whose inputs and outputs are tensors."""

import importlib.util
import inspect
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import torch

from branches.motion.branch import MotionBranch
from checkpoints.onnx_networks import Exported, exported_networks
from common.errors import UserError
from common.files import replacing
from common.safe_paths import exists, read_plain_file, refuse_links

OPSET: Final = 20  # the first one whose GridSample has the mode `linear`, which torch writes
_PACKAGES = ("onnx", "onnxscript")
_MAX_BYTES: Final = 2**30  # of an earlier export; those of vox.yaml have some 200 MB together


def require_packages() -> None:
    """Raise UserError if a package that writes ONNX is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--onnx needs {' and '.join(missing)}; install with: pip install -e '.[onnx]'"
        )


def files_to_write(
    branch: MotionBranch, size: tuple[int, int], folder: Path
) -> dict[Path, Exported]:
    """The networks of `branch`, in evaluation mode on the CPU, for images of `size`, by their files
    in `folder`, in the order in which another program must run them.

    size: (height, width).

    Raises:
        UserError: one of the files is there, and no export of such a model wrote it, or it is a
            link.
    """
    files = {folder / f"{found.name}.onnx": found for found in exported_networks(branch, size)}
    for path, exported in files.items():
        refuse_links(folder, Path(path.name))
        if exists(path) and not _is_own(path, exported):
            raise UserError(
                f"--onnx {folder} would replace {path}, which no export of such a model wrote; "
                "choose another folder, or move that file away"
            )
    return files


def write_onnx(files: Mapping[Path, Exported]) -> None:
    """Write all of `files_to_write`, or none.

    Raises:
        UserError: one cannot be written; then those of an earlier export stay.
    """
    with ExitStack() as stack:  # it renames at its end, so that two exports are not mixed
        for path, exported in files.items():
            _write(exported, stack.enter_context(replacing(path)))


def _is_own(path: Path, exported: Exported) -> bool:
    """Whether a file is a network by torch with the inputs and outputs of `exported`."""
    import onnx  # an optional package

    try:
        model = onnx.load_model_from_string(read_plain_file(path, _MAX_BYTES))
    except Exception:  # whatever the reader raises of a file that is something else
        return False
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    is_alike = inputs == [*exported.inputs] and outputs == exported.outputs
    return is_alike and bool(model.producer_name == "pytorch")


def _write(exported: Exported, path: Path) -> None:
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
    program.save(path, external_data=False)


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
