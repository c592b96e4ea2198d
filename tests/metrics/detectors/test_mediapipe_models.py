"""MediaPipe's networks: points follow a face and a body, masks cover people."""

from importlib.util import find_spec

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from metrics.detectors.mediapipe_models import BodyPose, FaceMesh, PersonMask
from metrics.detectors.resizing import resize_frame

pytest.importorskip("ai_edge_litert.interpreter")
if find_spec("mediapipe") is None:
    pytest.skip("no weights of MediaPipe here", allow_module_level=True)

RIGHT_EYE_CORNER, LEFT_EYE_CORNER, NOSE_TIP, UPPER_LIP, CHIN = 33, 263, 1, 13, 152  # of the mesh
NOSE, LEFT_HIP, RIGHT_HIP, LEFT_ANKLE, RIGHT_ANKLE = 0, 23, 24, 27, 28  # of the body


@pytest.fixture(scope="module")
def mesh():
    return FaceMesh()


@pytest.fixture(scope="module")
def pose():
    return BodyPose()


@pytest.fixture(scope="module")
def person():
    return PersonMask()


# Face


def test_mesh_lies_on_the_face(mesh, head):
    """The expected positions were read off the picture by eye, to 5 pixels."""
    points = mesh.landmarks(head())
    assert points.shape == (468, 2)
    assert_allclose(points[RIGHT_EYE_CORNER], (98, 81), atol=5)
    assert_allclose(points[LEFT_EYE_CORNER], (160, 84), atol=5)
    assert_allclose(points[NOSE_TIP], (129, 107), atol=5)
    assert_allclose(points[UPPER_LIP], (127, 125), atol=5)
    assert_allclose(points[CHIN], (125, 158), atol=5)


@pytest.mark.parametrize("shift", [(3, 2), (-2, 4)])
def test_mesh_moves_with_the_face(mesh, heads, shift):
    """The head is cut out of one frame at several positions."""
    x, y = shift
    for frame in (clip[0] for clip in heads):
        still, moved = frame[8:248, 8:248], frame[8 - y : 248 - y, 8 - x : 248 - x]
        difference = mesh.landmarks(moved) - mesh.landmarks(still)
        assert_allclose(difference.mean(axis=0), shift, atol=0.4)


def test_mesh_in_a_frame_of_another_shape(mesh, heads):
    """More rows below the face change the shape of the picture but not the points."""
    frame = heads[0][0]
    tall = np.concatenate((frame, np.repeat(frame[-1:], 64, axis=0)))
    assert np.abs(mesh.landmarks(tall) - mesh.landmarks(frame)).mean() < 1


def test_mesh_in_a_small_frame(mesh, heads):
    """Pixel i of a frame of 64 covers pixels 4 i to 4 i + 3 of one of 256."""
    frame = heads[0][0]
    small = mesh.landmarks(resize_frame(frame, (64, 64)))
    assert np.abs(4 * small + 1.5 - mesh.landmarks(frame)).mean() < 2


def test_no_face(mesh, blank):
    assert mesh.landmarks(blank).shape == (468, 2)
    assert np.isnan(mesh.landmarks(blank)).all()


# Body


def test_pose_from_head_to_foot(pose, person, body):
    points = pose.landmarks(body)
    assert points.shape == (33, 2)
    hips = points[[LEFT_HIP, RIGHT_HIP], 1].mean()
    assert points[NOSE, 1] < hips < points[[LEFT_ANKLE, RIGHT_ANKLE], 1].min()
    assert points[LEFT_HIP, 0] > points[RIGHT_HIP, 0]  # the person faces the camera
    columns, rows = np.rint(points[~np.isnan(points).any(axis=1)]).astype(int).T
    assert len(rows) >= 30
    assert person.region(body)[rows, columns].mean() > 0.8


def test_pose_moves_with_the_body(pose, body):
    difference = pose.landmarks(body[6:246, 5:245]) - pose.landmarks(body[8:248, 8:248])
    assert_allclose(np.nanmean(difference, axis=0), (3, 2), atol=0.4)


def test_points_outside_the_frame_are_nan(pose, portrait):
    """A frame from the hips up shows a nose and shoulders but no feet."""
    points = pose.landmarks(portrait)
    assert_allclose(points[NOSE], (225, 127), atol=16)
    assert np.isnan(points[LEFT_ANKLE]).all()


def test_a_frame_without_a_person(pose, blank):
    assert pose.landmarks(blank).shape == (33, 2)
    assert np.isnan(pose.landmarks(blank)).all()


# Person


def test_person_from_the_background(person, portrait):
    region = person.region(portrait)
    assert region.shape == (512, 512)
    assert region.dtype == bool
    assert region[100, 225]  # her face
    assert region[350, 200]  # her suit
    assert not region[10, [10, 400]].any()  # the wall
    assert 0.4 < region.mean() < 0.7


def test_person_in_a_frame_of_another_shape(person, portrait):
    wide = resize_frame(portrait, (128, 256))
    expected = person.region(portrait)[2::4, 1::2]
    assert (person.region(wide) == expected).mean() > 0.97


def test_people_of_real_clips(person, heads):
    for clip in heads:
        region = person.region(clip[0])
        assert region[96:160, 96:160].all()
        assert not region[:8, :8].any()


def test_mask_without_a_person(person, blank):
    assert not person.region(blank).any()


def test_networks_repeat_exactly(mesh, person, portrait, head):
    assert_array_equal(FaceMesh().landmarks(head()), mesh.landmarks(head()))
    assert_array_equal(PersonMask().region(portrait), person.region(portrait))
