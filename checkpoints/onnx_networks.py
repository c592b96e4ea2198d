"""The networks of each kind of motion model, with tensors alone going in and out, for export."""

import copy
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from branches.motion.branch import MotionBranch
from branches.motion.fomm import FommBranch
from branches.motion.monkey_net import MonkeyNetBranch
from branches.motion.tpsmm import TpsmmBranch
from branches.motion.x2face import X2FaceBranch
from modules.dense_motion import DenseMotion
from modules.generator import GeneratedFrame
from modules.geometry import warp
from modules.keypoint_detector import Keypoints
from modules.tpsmm.dense_motion import ThinPlateMotion

Matrices = Literal["jacobian", "covariance"]


class Exported(NamedTuple):
    """A network to export.

    inputs: an example of every input by its name, in the order of `forward`, batch first.
    outputs: names of the outputs.
    """

    name: str
    network: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]


def exported_networks(branch: MotionBranch, size: tuple[int, int]) -> list[Exported]:
    """The networks of `branch`, which is in evaluation mode on the CPU, for images of `size`, in
    the order in which they are run.
    """
    # Examples: two of each, so that the batch is not taken for a constant, and no tensor twice,
    # which would be taken for one input.
    source, driving = torch.zeros(2, 3, *size), torch.zeros(2, 3, *size)
    with torch.no_grad():
        if isinstance(branch, FommBranch):
            return _fomm(branch, source, driving)
        if isinstance(branch, MonkeyNetBranch):
            return _monkey_net(branch, source, driving)
        if isinstance(branch, TpsmmBranch):
            return _tpsmm(branch, source, driving)
        assert isinstance(branch, X2FaceBranch)
        return _x2face(branch, source, driving)


class _Wrapper(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network


class _Detector(_Wrapper):
    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        return tuple(_present(self.network(frame)._asdict()).values())


class _DenseMotion(_Wrapper):
    """Dense motion of FOMM and Monkey-Net, with the kind of matrices that its keypoints have."""

    def __init__(self, network: nn.Module, matrices: Matrices) -> None:
        super().__init__(network)
        self.matrices = matrices

    def forward(
        self,
        source: Tensor,
        source_value: Tensor,
        driving_value: Tensor,
        source_matrix: Tensor | None = None,
        driving_matrix: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        motion = self.network(
            source,
            _keypoints(source_value, self.matrices, source_matrix),
            _keypoints(driving_value, self.matrices, driving_matrix),
        )
        return tuple(_present(motion._asdict()).values())


class _Generator(_Wrapper):
    """FOMM's generator."""

    def forward(
        self, source: Tensor, deformation: Tensor, occlusion_map: Tensor | None = None
    ) -> Tensor:
        generated: GeneratedFrame = self.network(
            source, _without_weights(deformation, occlusion_map)
        )
        return generated.prediction


class _MonkeyNetGenerator(_Wrapper):
    def forward(
        self,
        source: Tensor,
        source_value: Tensor,
        driving_value: Tensor,
        source_covariance: Tensor,
        driving_covariance: Tensor,
        deformation: Tensor,
        occlusion_map: Tensor | None = None,
    ) -> Tensor:
        return self.network(
            source,
            _without_weights(deformation, occlusion_map),
            Keypoints(source_value, None, source_covariance),
            Keypoints(driving_value, None, driving_covariance),
        )


class _ThinPlateMotion(_Wrapper):
    """TPSMM's dense motion. ONNX has no operator that solves equations, so they are eliminated."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(copy.deepcopy(network))
        self.network.solver = solve_by_elimination

    def forward(
        self,
        source: Tensor,
        source_value: Tensor,
        driving_value: Tensor,
        background: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        source_keypoints, driving_keypoints = (
            Keypoints(value, None) for value in (source_value, driving_value)
        )
        motion = self.network(source, source_keypoints, driving_keypoints, background)
        return (motion.deformation, motion.motion_weights, *motion.occlusion_maps)


class _Inpainting(_Wrapper):
    def forward(self, source: Tensor, deformation: Tensor, *occlusion_maps: Tensor) -> Tensor:
        unused = deformation.new_empty(0)  # the network asks for no weights
        return self.network(source, ThinPlateMotion(deformation, [*occlusion_maps], unused))


class _Avd(_Wrapper):
    def forward(self, source_value: Tensor, driving_value: Tensor) -> Tensor:
        return self.network(Keypoints(source_value, None), Keypoints(driving_value, None)).value


class _Embedding(_Wrapper):
    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.place(source))


class _Driving(_Wrapper):
    def forward(self, face: Tensor, driving: Tensor) -> tuple[Tensor, Tensor]:
        deformation = self.network(driving)
        return deformation, warp(face, deformation)


def _fomm(branch: FommBranch, source: Tensor, driving: Tensor) -> list[Exported]:
    points = branch.detect(source), branch.detect(driving)
    motion = _present(branch.dense_motion(source, *points)._asdict())
    shown: dict[str, Tensor] = {
        name: motion[name] for name in ("deformation", "occlusion_map") if name in motion
    }
    return [
        _detector(branch.keypoint_detector, driving, points[1]),
        Exported(
            "dense_motion",
            _DenseMotion(branch.dense_motion, "jacobian"),
            {"source": source, **_keypoint_inputs(*points)},
            list(motion),
        ),
        Exported(
            "generator", _Generator(branch.generator), {"source": source, **shown}, ["prediction"]
        ),
    ]


def _monkey_net(branch: MonkeyNetBranch, source: Tensor, driving: Tensor) -> list[Exported]:
    points = branch.detect(source), branch.detect(driving)
    motion = _present(branch.dense_motion(source, *points)._asdict())
    shown: dict[str, Tensor] = {
        name: motion[name] for name in ("deformation", "occlusion_map") if name in motion
    }
    inputs = {"source": source, **_keypoint_inputs(*points)}
    return [
        _detector(branch.keypoint_detector, driving, points[1]),
        Exported(
            "dense_motion", _DenseMotion(branch.dense_motion, "covariance"), inputs, list(motion)
        ),
        Exported(
            "generator", _MonkeyNetGenerator(branch.generator), {**inputs, **shown}, ["prediction"]
        ),
    ]


def _tpsmm(branch: TpsmmBranch, source: Tensor, driving: Tensor) -> list[Exported]:
    points = branch.detect(source), branch.detect(driving)
    inputs = {"source": source, **_keypoint_inputs(*points)}
    found = [_detector(branch.keypoint_detector, driving, points[1])]
    background = None
    if branch.background_motion is not None:
        background = inputs["background"] = branch.background_motion(source, driving)
        frames = {"source": source, "driving": driving}
        found.append(Exported("background_motion", branch.background_motion, frames, ["affine"]))
    if branch.avd is not None:
        found.append(Exported("avd", _Avd(branch.avd), _values(*points), ["value"]))
    motion = branch.dense_motion(source, *points, background)
    maps = {f"occlusion_map_{i}": map_ for i, map_ in enumerate(motion.occlusion_maps)}
    shown = {"source": source, "deformation": motion.deformation, **maps}
    found += [
        Exported(
            "dense_motion",
            _ThinPlateMotion(branch.dense_motion),
            inputs,
            ["deformation", "motion_weights", *maps],
        ),
        Exported("inpainting", _Inpainting(branch.inpainting), shown, ["prediction"]),
    ]
    return found


def _x2face(branch: X2FaceBranch, source: Tensor, driving: Tensor) -> list[Exported]:
    return [
        Exported(
            "embedding",
            _Embedding(branch.embedding),
            {"source": source},
            ["face", "field", "weight"],
        ),
        Exported(
            "driving",
            _Driving(branch.driving),
            {"face": source, "driving": driving},
            ["deformation", "prediction"],
        ),
    ]


def _detector(network: nn.Module, frame: Tensor, found: Keypoints) -> Exported:
    outputs = list(_present(found._asdict()))
    return Exported("keypoint_detector", _Detector(network), {"frame": frame}, outputs)


def _values(source: Keypoints, driving: Keypoints) -> dict[str, Tensor]:
    return {"source_value": source.value, "driving_value": driving.value}


def _keypoint_inputs(source: Keypoints, driving: Keypoints) -> dict[str, Tensor]:
    """The tensors of both frames' keypoints: first the values, then the matrices."""
    inputs: dict[str, Tensor] = {}
    for name, of_source in _present(source._asdict()).items():
        inputs |= {f"source_{name}": of_source, f"driving_{name}": getattr(driving, name)}
    return inputs


def _keypoints(value: Tensor, matrices: Matrices, matrix: Tensor | None) -> Keypoints:
    fields: dict[str, Tensor | None] = {"jacobian": None, matrices: matrix}
    return Keypoints(value, **fields)


def _without_weights(deformation: Tensor, occlusion_map: Tensor | None) -> DenseMotion:
    return DenseMotion(deformation, occlusion_map, deformation.new_empty(0))


def _present(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that are there, in order."""
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def solve_by_elimination(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve M x = b for matrices ... x n x n and right sides ... x n x m, by operators that ONNX
    has: Gauss-Jordan elimination, in each column with the largest element as the pivot.
    """
    size = matrix.shape[-1]
    numbers = torch.arange(size)
    rows = torch.cat((matrix, right), dim=-1)
    is_left = torch.ones_like(matrix[..., 0], dtype=torch.bool)
    chosen = []
    for column in range(size):
        elements = rows[..., column]
        candidates = torch.where(is_left, elements.abs(), -1.0)
        # Rows are chosen by a sum over all of them, instead of being exchanged.
        is_pivot = numbers == candidates.argmax(dim=-1, keepdim=True)
        is_left = is_left & ~is_pivot
        pivot = (rows * is_pivot.unsqueeze(-1)).sum(dim=-2, keepdim=True)
        pivot = pivot / pivot[..., column : column + 1]
        eliminated = rows - elements.unsqueeze(-1) * pivot
        rows = torch.where(is_pivot.unsqueeze(-1), pivot, eliminated)
        chosen.append(is_pivot)
    # Row k of the solution stands where the pivot of column k was.
    order = torch.stack(chosen, dim=-2).to(rows.dtype)
    return order @ rows[..., size:]
