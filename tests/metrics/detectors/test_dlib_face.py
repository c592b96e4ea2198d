"""dlib's faces: position and movement of the landmarks, boxes, identity."""

from importlib.util import find_spec

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from metrics.detectors.dlib_face import DlibFace
from metrics.detectors.resizing import resize_frame

pytest.importorskip("dlib")
if find_spec("face_recognition_models") is None:
    pytest.skip("no weights of dlib here", allow_module_level=True)

RIGHT_EYE, LEFT_EYE, NOSE_TIP, MOUTH, CHIN = slice(36, 42), slice(42, 48), 30, slice(48, 68), 8


@pytest.fixture(scope="module")
def detector():
    return DlibFace()


def test_landmarks_lie_on_the_face(detector, head):
    """The expected positions were read off the picture by eye, to 3 pixels."""
    points = detector.landmarks(head())
    assert points.shape == (68, 2)
    assert_allclose(points[RIGHT_EYE].mean(axis=0), (108, 82), atol=3)
    assert_allclose(points[LEFT_EYE].mean(axis=0), (150, 84), atol=3)
    assert_allclose(points[NOSE_TIP], (129, 107), atol=3)
    assert_allclose(points[MOUTH].mean(axis=0), (127, 128), atol=3)
    assert_allclose(points[CHIN], (125, 158), atol=3)


@pytest.mark.parametrize("shift", [(3, 2), (-6, 0), (0, 8)])
def test_landmarks_move_with_the_face(detector, head, shift):
    moved = detector.landmarks(head(*shift)) - detector.landmarks(head())
    assert_allclose(moved.mean(axis=0), shift, atol=0.6)


def test_the_same_frame_gives_the_same_numbers(detector, head):
    points, embedding = detector.landmarks(head()), detector.embedding(head())
    assert (detector.landmarks(head(3, 2)) != points).any()
    assert_array_equal(detector.landmarks(head()), points)
    assert_array_equal(detector.embedding(head()), embedding)


def test_a_frame_without_a_face(detector, blank):
    assert detector.landmarks(blank).shape == (68, 2)
    assert np.isnan(detector.landmarks(blank)).all()
    assert detector.embedding(blank).shape == (128,)
    assert np.isnan(detector.embedding(blank)).all()
    assert detector.face_box(blank) is None


def test_small_frames_are_enlarged(detector, head):
    """Pixel i of a frame of 64 covers pixels 4 i to 4 i + 3 of one of 256; their centre is at
    4 i + 1.5.
    """
    small = resize_frame(head(), (64, 64))
    large = resize_frame(small, (256, 256))
    assert not np.isnan(detector.landmarks(small)).any()
    assert_allclose(4 * detector.landmarks(small) + 1.5, detector.landmarks(large))
    assert_allclose(4 * np.array(detector.face_box(small)), detector.face_box(large))
    assert_array_equal(detector.embedding(small), detector.embedding(large))


def test_landmarks_of_a_small_frame_are_those_of_a_large_one(detector, head):
    small = detector.landmarks(resize_frame(head(), (64, 64)))
    difference = 4 * small + 1.5 - detector.landmarks(head())
    assert np.abs(difference).mean() < 2  # half a pixel of the small frame


def test_the_box_holds_eyes_and_mouth(detector, head):
    left, top, width, height = detector.face_box(head())
    points = detector.landmarks(head())
    for part in (RIGHT_EYE, LEFT_EYE, MOUTH):
        assert ((points[part] > (left, top)) & (points[part] < (left + width, top + height))).all()
    assert 60 < width < 120  # the head is 140 pixels wide, the face from ear to ear 100


@pytest.mark.parametrize("largest_first", [True, False])
def test_the_largest_face_counts(detector, head, largest_first):
    """The clearest face, or the leftmost one, does not count."""
    large, small = head() // 8 + 110, np.zeros((256, 256, 3), np.uint8)
    small[50:242, 30:222] = resize_frame(head(), (192, 192))
    assert not np.isnan(detector.landmarks(small)).any()  # it is found if it is alone
    frame = np.hstack((large, small) if largest_first else (small, large))
    offset = np.array((0 if largest_first else 256, 0))
    assert np.abs(detector.landmarks(frame) - offset - detector.landmarks(large)).mean() < 2


def test_landmarks_and_identity_search_once(detector, head, monkeypatch):
    searches = []
    search = detector._detect
    monkeypatch.setattr(
        detector, "_detect", lambda *arguments: searches.append(1) or search(*arguments)
    )
    detector.landmarks(head(1, 1))
    detector.embedding(head(1, 1))
    detector.face_box(head(1, 1))
    assert len(searches) == 1


def test_a_frame_drawn_over_is_another_frame(detector, head):
    frame = head().copy()
    assert detector.face_box(frame) is not None
    frame[:] = 0
    assert detector.face_box(frame) is None


def test_two_people_are_farther_apart_than_one_from_itself(detector, heads):
    first, second = (np.stack([detector.embedding(frame) for frame in clip]) for clip in heads)
    distances = np.linalg.norm(first[:, None] - first, axis=-1)
    across = np.linalg.norm(first[:, None] - second, axis=-1)
    assert distances.max() < 0.6 < across.min()  # dlib's threshold
