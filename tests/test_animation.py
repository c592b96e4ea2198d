"""Encode once and predict, relative motion, streaming."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from animation import Animator, batched
from branches.motion import MotionBranch
from errors import UserError
from model import Model
from tests.factories import noise_inputs, tiny_config

CONFIG = tiny_config("data.image_size=[32, 48]")


@pytest.fixture(scope="module")
def motion():
    """A motion branch whose keypoints, Jacobians and BatchNorm statistics are not trivial."""
    branch = Model(CONFIG).branches["motion"]
    assert isinstance(branch, MotionBranch)
    generator = torch.Generator().manual_seed(0)
    assert branch.keypoint_detector.jacobian is not None
    for conv, size in ((branch.keypoint_detector.jacobian, 0.02), (branch.keypoint_detector.kp, 1)):
        conv.weight.data += size * torch.randn(conv.weight.shape, generator=generator)
    branch.train()
    with torch.no_grad():
        for _ in range(20):
            branch(noise_inputs(CONFIG))
    return branch.eval()


@pytest.fixture
def animator(motion):
    return Animator(motion, torch.device("cpu"))


@pytest.fixture(scope="module")
def frames():
    """Six smooth frames, uint8 N x 32 x 48 x 3; the first one is the source."""
    images = noise_inputs(CONFIG, batch=6).driving
    return (images * 255).round().byte().movedim(1, -1).numpy().copy()


def predictions(animator, source, driving, **arguments):
    return torch.cat([p for _, p in animator.animate(source, iter(driving), **arguments)])


def test_absolute_motion_equals_the_branch_in_evaluation_mode(animator, motion, frames):
    source, driving = frames[0], frames[1:]
    animated = predictions(animator, source, driving, motion="absolute")
    inputs = noise_inputs(CONFIG)._replace(
        source=animator.to_device(np.stack([source] * 5)), driving=animator.to_device(driving)
    )
    with torch.no_grad():
        expected = motion(inputs).prediction
    assert_close(animated, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_batch_size_does_not_change_the_result(animator, frames, kind):
    arguments = {"motion": kind, "adapt_scale": True}
    one = predictions(animator, frames[0], frames[1:], batch_size=1, **arguments)
    for size in (2, 5, 8):
        many = predictions(animator, frames[0], frames[1:], batch_size=size, **arguments)
        assert_close(many, one, atol=1e-5, rtol=0)


def test_still_driving_clip_leaves_the_source_still(animator, frames):
    """Relative motion by a clip that does not move: the source's own keypoints, whoever drives."""
    encoded = animator.encode(frames[0])
    expected = animator.predict(encoded, encoded.keypoints)
    for prediction in predictions(animator, frames[0], [frames[3]] * 3, adapt_scale=True):
        assert_close(prediction, expected[0], atol=1e-4, rtol=0)
    absolute = predictions(animator, frames[0], [frames[3]], motion="absolute")
    assert not torch.allclose(absolute, expected, atol=1e-4)


def test_driving_frames_come_back_as_they_went_in(animator, frames):
    batches = [batch for batch, _ in animator.animate(frames[0], iter(frames), batch_size=4)]
    assert [len(batch) for batch in batches] == [4, 2]
    assert np.array_equal(np.concatenate(batches), frames)


def test_other_size_is_the_users_mistake(animator, frames):
    small = frames[1:, :16, :16]
    with pytest.raises(UserError, match="frames are 16 x 16 pixels, the source 48 x 32"):
        predictions(animator, frames[0], small)


def test_driving_clip_is_consumed_batch_by_batch(animator, frames):
    consumed = 0

    def endless():
        nonlocal consumed
        while True:
            consumed += 1
            yield frames[consumed % 6]

    stream = animator.animate(frames[0], endless(), batch_size=3)
    assert consumed == 0
    for count in (3, 6, 9):
        next(stream)
        assert consumed == count


def test_no_driving_frames_no_predictions(animator, frames):
    assert list(animator.animate(frames[0], [])) == []


def test_batched():
    assert list(batched("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
