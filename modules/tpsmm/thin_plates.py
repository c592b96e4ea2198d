"""Thin-plate splines through groups of keypoints, from the driving frame to the source."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.geometry import coordinate_grid, full_precision
from modules.keypoint_detector import Keypoints
from modules.thin_plate import radial

POINTS_PER_PLATE = 5  # N of the paper, for all of its data sets
_REGULARIZATION = 0.01  # as published, on the whole diagonal

# From matrices M, ... x n x n, and right sides b, ... x n x m, to the solutions of M x = b.
Solver = Callable[[Tensor, Tensor], Tensor]


class ThinPlates(NamedTuple):
    """K backward motions T(z) = sum_i w_i U(|z - p_i|^2) + A z + b with U(r) = r log(r + 1e-9)
    (TPSMM, section on TPS motion estimation).

    control_points: B x K x 5 x 2, p_i.
    weights: B x K x 5 x 2, w_i.
    affine: B x K x 2 x 3, [A b].
    """

    control_points: Tensor
    weights: Tensor
    affine: Tensor

    def points(self, points: Tensor) -> Tensor:
        """T at `points`, B x K x P x 2 or, the same for all, 1 x 1 x P x 2 -> B x K x P x 2."""
        # Autocast would round the products to bf16, whose step near 1 is half a pixel of 256.
        with torch.autocast(points.device.type, enabled=False):
            # One axis after the other: offsets of both at once would be the largest tensor here.
            x, y = (
                points[..., axis, None] - self.control_points[..., None, :, axis] for axis in (0, 1)
            )
            bending = radial(x.square() + y.square()) @ self.weights
            return bending + points @ self.affine[..., :2].mT + self.affine[..., None, :, 2]

    def motions(self, height: int, width: int) -> Tensor:
        """T at every pixel, B x K x H x W x 2: where in the source it comes from."""
        grid = coordinate_grid(height, width, self.weights).view(1, 1, -1, 2)
        return self.points(grid).unflatten(2, (height, width))


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """The `Solver` of torch. It is not asked for errors: the host would wait for the device."""
    return torch.linalg.solve_ex(matrix, right, check_errors=False).result


def fit_thin_plates(source: Keypoints, driving: Keypoints, solver: Solver = solve) -> ThinPlates:
    """The plate of each group of 5 keypoints, B x 5K x 2, which moves the driving ones to the
    source's: [w; (A b)^T] = M^-1 [p_S; 0] with M = [[U, P], [P^T, 0]] + 0.01 I (8 x 8), U between
    the driving keypoints, P their rows (x, y, 1).

    The 0.01 keeps M invertible where the keypoints of a group lie on one spot or on a line. For
    it T(p_D) differs from p_S by 0.01 w. Where they lie within about 0.02 of a line, M may come
    near to having no inverse: motions are then large, as published.
    """
    with torch.autocast(driving.value.device.type, enabled=False):
        target = full_precision(source.value).unflatten(1, (-1, POINTS_PER_PLATE))
        points = full_precision(driving.value).unflatten(1, (-1, POINTS_PER_PLATE))
        squared = (points.unsqueeze(-2) - points.unsqueeze(-3)).square().sum(-1)
        rows = F.pad(points, (0, 1), value=1.0)  # (x, y, 1)
        above = torch.cat((radial(squared), rows), dim=-1)
        matrix = torch.cat((above, F.pad(rows.mT, (0, 3))), dim=-2)
        diagonal = torch.eye(POINTS_PER_PLATE + 3, device=points.device, dtype=points.dtype)
        # M has eigenvalues of both signs.
        solution = solver(matrix + _REGULARIZATION * diagonal, F.pad(target, (0, 0, 0, 3)))
    weights, affine = solution.split((POINTS_PER_PLATE, 3), dim=-2)
    return ThinPlates(points, weights, affine.mT)
