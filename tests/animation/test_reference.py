"""The nearest driving frame, and one pass instead of two from this reference frame."""

import math
import weakref

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from animation.branch_animators import MotionAnimator, animate, frames_to_tensor
from animation.reference import is_far, keypoint_distance, nearest_frame
from branches.model import Model
from branches.motion.fomm import FommBranch
from tests.helpers.factories import noise_inputs, tiny_config

CPU = torch.device("cpu")
SQUARE = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [0.0, 0.0]])


def build(*overrides):
    """An animator whose keypoints are not trivial."""
    config = tiny_config("data.image_size=[32, 48]", *overrides)
    branch = Model(config).eval().motion
    assert isinstance(branch, FommBranch)
    detector = branch.keypoint_detector
    assert detector.jacobian is not None
    generator = torch.Generator().manual_seed(0)
    for conv, size in ((detector.jacobian, 0.02), (detector.kp, 1)):
        conv.weight.data += size * torch.randn(conv.weight.shape, generator=generator)
    return MotionAnimator(branch, CPU, adapt_scale=True)


@pytest.fixture(scope="module")
def animator():
    return build()


@pytest.fixture(scope="module")
def frames():
    """Seven smooth frames, uint8 N x 32 x 48 x 3; the first one is the source."""
    images = noise_inputs(tiny_config("data.image_size=[32, 48]"), batch=7).driving
    return (images * 255).round().byte().movedim(1, -1).numpy().copy()


def predictions(animator, source, driving, reference=None):
    batches = animate(animator, source, iter(driving), 4, reference)
    return torch.cat([prediction for _, prediction in batches])


def test_distance_by_hand():
    """The middle point of a 2 x 2 square moves by 0.5, so the mean of the five points by 0.1. As
    shares of the square's side, the corners differ by 0.05 and the middle by 0.2, all in x: 0.4
    over ten coordinates.
    """
    moved = SQUARE.clone()
    moved[4, 0] = 0.5
    assert keypoint_distance(SQUARE, moved) == pytest.approx(0.04, rel=1e-5)
    assert keypoint_distance(moved, SQUARE) == pytest.approx(0.04, rel=1e-5)


def test_place_and_size_do_not_matter():
    elsewhere = 0.2 * SQUARE + torch.tensor([0.3, -0.6])
    assert keypoint_distance(SQUARE, elsewhere) == pytest.approx(0, abs=1e-6)
    assert keypoint_distance(SQUARE, SQUARE.flip(1)) > 0.1


@pytest.mark.parametrize("points", [SQUARE * 0, SQUARE * torch.tensor([1.0, 0]), SQUARE * math.nan])
def test_without_a_hull_the_distance_is_infinite(points):
    assert keypoint_distance(SQUARE, points) == math.inf
    assert keypoint_distance(points, SQUARE) == math.inf


@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_nearest_frame(animator, frames, batch_size):
    """The source itself is twice among the driving frames; the first one is found."""
    driving = [*frames[1:4], frames[0], *frames[4:], frames[0]]
    found = nearest_frame(animator, frames[0], iter(driving), batch_size)
    assert (found.index, found.num_frames) == (3, 8)
    assert found.distance == pytest.approx(0, abs=1e-4)
    with torch.no_grad():
        keypoints = animator.branch.keypoint_detector(frames_to_tensor(frames[:2], CPU)).value
    assert found.first_distance == pytest.approx(keypoint_distance(*keypoints), rel=1e-3)
    assert found.first_distance > 0.01


def test_nearest_frame_has_the_smallest_distance(animator, frames):
    with torch.no_grad():
        points = animator.branch.keypoint_detector(frames_to_tensor(frames, CPU)).value
    distances = [keypoint_distance(points[0], points[index]) for index in (5, 1, 3, 6, 2, 4)]
    found = nearest_frame(animator, frames[0], frames[[5, 1, 3, 6, 2, 4]], 4)
    assert found.index == int(np.argmin(distances)) != 0
    assert found.distance == pytest.approx(min(distances), rel=1e-3)


def test_without_any_hull_the_first_frame_is_nearest(frames):
    animator = build("motion.keypoint_detector.num_keypoints=2")
    found = nearest_frame(animator, frames[0], iter(frames[1:]), 4)
    assert (found.index, found.num_frames) == (0, 6)
    assert (found.distance, found.first_distance) == (math.inf, math.inf)
    assert is_far(found.first_distance)


def test_no_frames(animator, frames):
    with pytest.raises(ValueError, match="no driving frames"):
        nearest_frame(animator, frames[0], [], 4)


def test_clip_is_streamed(animator, frames):
    alive, most = [], 0

    def clip():
        nonlocal most
        for index in range(40):
            frame = frames[index % 7].copy()
            alive.append(weakref.ref(frame))
            most = max(most, sum(one() is not None for one in alive))
            yield frame
            del frame

    assert nearest_frame(animator, frames[0], clip(), 4).num_frames == 40
    assert most <= 2 * 4  # a batch, and the one before it


def test_one_pass_equals_a_forward_and_a_backward_pass(animator, frames):
    """The two passes run from frame 3 to the end, and from frame 3 back to the start."""
    source, driving = frames[0], frames[1:]
    forward = predictions(animator, source, driving[3:])
    backward = predictions(animator, source, driving[3::-1])
    together = torch.cat((backward.flip(0), forward[1:]))
    one_pass = predictions(animator, source, driving, reference=driving[3])
    assert_close(one_pass, together, atol=1e-5, rtol=0)
    assert (one_pass - predictions(animator, source, driving)).abs().max() > 1e-3


def test_far():
    assert is_far(0.3)
    assert not is_far(0.1)
