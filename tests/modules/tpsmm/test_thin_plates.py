"""Thin plates through groups of keypoints: by hand, against the equations, and where they fail."""

import math

import pytest
import torch
from torch.testing import assert_close

from modules.geometry import coordinate_grid
from modules.keypoint_detector import Keypoints
from modules.tpsmm.thin_plates import fit_thin_plates


def drawn(batch=2, num_plates=3, dtype=torch.float32):
    def keypoints():
        return Keypoints(torch.rand(batch, 5 * num_plates, 2, dtype=dtype) * 2 - 1, None)

    return keypoints(), keypoints()


def test_one_spot_by_hand():
    """All driving keypoints in the centre, all of the source at c: M [w; a] = [c; 0] says
    0.01 w + a = c and 5 w + 0.01 a = 0, so that a = c / (1 - 2e-5) and w = -0.002 a.
    """
    c = torch.tensor([0.5, -0.25])
    plates = fit_thin_plates(
        Keypoints(c.expand(1, 5, 2), None), Keypoints(torch.zeros(1, 5, 2), None)
    )
    a = c / (1 - 2e-5)
    assert_close(plates.weights, (-0.002 * a).expand(1, 1, 5, 2))
    assert_close(plates.affine[0, 0], torch.stack((torch.zeros(2), torch.zeros(2), a), dim=1))
    # At (0.5, 0) U = 0.25 log 0.25, five times; at (0, 1) U = log 1.
    found = plates.points(torch.tensor([[[[0.5, 0.0], [0.0, 1.0]]]]))
    expected = torch.stack((a * (1 - 0.01 * 0.25 * math.log(0.25)), a))
    assert_close(found[0, 0], expected)


def test_equations_of_the_plate():
    source, driving = drawn(dtype=torch.float64)
    plates = fit_thin_plates(source, driving)
    points, target = (k.value.unflatten(1, (3, 5)) for k in (driving, source))
    # T meets the source's keypoints but for the 0.01 on the diagonal, which is in P^T w = 0 too.
    assert_close(plates.points(points), target - 0.01 * plates.weights)
    rows = torch.cat((points, torch.ones_like(points[..., :1])), dim=-1)
    assert_close(rows.mT @ plates.weights, -0.01 * plates.affine.mT)


def test_each_plate_is_of_its_own_group_and_sample():
    source, driving = drawn()
    together = fit_thin_plates(source, driving).motions(4, 6)
    assert together.shape == (2, 3, 4, 6, 2)
    for sample in range(2):
        for k in range(3):
            group = (slice(sample, sample + 1), slice(5 * k, 5 * k + 5))
            alone = fit_thin_plates(
                Keypoints(source.value[group], None), Keypoints(driving.value[group], None)
            )
            assert_close(alone.motions(4, 6)[0, 0], together[sample, k], atol=1e-4, rtol=1e-4)


def test_motions_are_the_plates_at_every_pixel():
    source, driving = drawn()
    plates = fit_thin_plates(source, driving)
    grid = coordinate_grid(4, 6, source.value).view(1, 1, -1, 2)
    same = plates.points(grid.expand(2, 3, -1, -1)).view(2, 3, 4, 6, 2)
    assert_close(plates.motions(4, 6), same, atol=1e-5, rtol=1e-5)


def test_gradients_equal_finite_differences():
    def motions(source, driving):
        return fit_thin_plates(Keypoints(source, None), Keypoints(driving, None)).motions(3, 3)

    source, driving = (k.value.requires_grad_() for k in drawn(1, 2, torch.float64))
    assert torch.autograd.gradcheck(motions, (source, driving))


@pytest.mark.parametrize(
    "driving",
    [
        [[0.3, -0.2]] * 5,  # on one spot
        [[x, 0.5] for x in (-1.0, -0.5, 0.0, 0.5, 1.0)],  # on a line
        [[-1.0, -1], [1, -1], [1, 1], [-1, 1], [1, 1]],  # two on one spot
    ],
)
def test_groups_without_extent_have_finite_motions_and_gradients(driving):
    points = torch.tensor([driving]).requires_grad_()
    source = (torch.rand(1, 5, 2) * 2 - 1).requires_grad_()
    motions = fit_thin_plates(Keypoints(source, None), Keypoints(points, None)).motions(8, 8)
    assert motions.isfinite().all()
    motions.square().mean().backward()
    assert points.grad.isfinite().all()
    assert source.grad.isfinite().all()


def test_plates_stay_float32_under_autocast():
    source, driving = drawn()
    plain = fit_thin_plates(source, driving)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fit_thin_plates(source, driving)
        motions = inside.motions(4, 4)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))
    assert torch.equal(motions, plain.motions(4, 4))
