"""Encode once and predict, relative motion, masks instead of keypoints, streaming."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from animation.movers import (
    MaskMover,
    MotionMover,
    animate,
    batched,
    build_mover,
    frames_to_tensor,
    reconstruction_movers,
)
from branches.masks import MaskBranch
from branches.motion import MotionBranch
from errors import UserError
from model import Model
from modules.perturbation import shrink
from tests.factories import noise_inputs, tiny_config

CONFIG = tiny_config("data.image_size=[32, 48]")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    """Untrained; its masks differ between frames, its BatchNorm statistics are not trivial."""
    model = Model(CONFIG)
    masks = model.branches["masks"]
    assert isinstance(masks, MaskBranch)
    masks.train()
    with torch.no_grad():
        for _ in range(20):
            masks(noise_inputs(CONFIG))
    return model.eval()


@pytest.fixture(scope="module")
def masks(model):
    return model.branches["masks"]


@pytest.fixture(scope="module")
def motion(model):
    """A motion branch whose keypoints, Jacobians and BatchNorm statistics are not trivial."""
    branch = model.branches["motion"]
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
    return MotionMover(motion, CPU)


@pytest.fixture(scope="module")
def frames():
    """Six smooth frames, uint8 N x 32 x 48 x 3; the first one is the source."""
    images = noise_inputs(CONFIG, batch=6).driving
    return (images * 255).round().byte().movedim(1, -1).numpy().copy()


def predictions(animator, source, driving, batch_size=8):
    return torch.cat([p for _, p in animate(animator, source, iter(driving), batch_size)])


def test_absolute_motion_equals_the_branch_in_evaluation_mode(motion, frames):
    source, driving = frames[0], frames[1:]
    animated = predictions(MotionMover(motion, CPU, motion="absolute"), source, driving)
    inputs = noise_inputs(CONFIG)._replace(
        source=frames_to_tensor(np.stack([source] * 5), CPU), driving=frames_to_tensor(driving, CPU)
    )
    with torch.no_grad():
        expected = motion(inputs).prediction
    assert_close(animated, expected, atol=1e-5, rtol=0)


def test_masks_equal_the_formula(masks, frames):
    """H(.., R(down(S), m(S), P(m(D)))), and H(.., m(D)) where the figure is the source's own."""
    source, driving = frames_to_tensor(frames[:1], CPU), frames_to_tensor(frames[1:], CPU)
    settings = CONFIG.masks.perturbation
    expected = {}
    with torch.no_grad():
        source_mask = masks.mask_generator(source).expand(5, -1, -1, -1)
        driving_mask = masks.mask_generator(driving)
        sources = source.expand(5, -1, -1, -1)
        shrunk = shrink(driving_mask, threshold=settings.threshold, scale=settings.animation_scale)
        for same_figure, target in (
            (False, masks.refine(sources, source_mask, shrunk)),
            (True, driving_mask),
        ):
            expected[same_figure] = masks.generate(sources, source_mask, target)[1]
    for same_figure in (False, True):
        animator = MaskMover(masks, CPU, same_figure=same_figure)
        animated = predictions(animator, frames[0], frames[1:])
        assert_close(animated, expected[same_figure], atol=1e-5, rtol=0)
    assert not torch.allclose(expected[False], expected[True], atol=1e-3)


@pytest.mark.parametrize("kind", ["relative", "absolute", "masks"])
def test_batch_size_does_not_change_the_result(motion, masks, frames, kind):
    if kind == "masks":
        animator = MaskMover(masks, CPU)
    else:
        animator = MotionMover(motion, CPU, motion=kind, adapt_scale=True)
    one = predictions(animator, frames[0], frames[1:], batch_size=1)
    for size in (2, 5, 8):
        many = predictions(animator, frames[0], frames[1:], batch_size=size)
        assert_close(many, one, atol=1e-5, rtol=0)
    assert (one - one[0]).abs().max() > 1e-3  # the driving frames have a say


def test_still_driving_clip_leaves_the_source_still(motion, frames):
    """Relative motion by a clip that does not move: the source's own keypoints, whoever drives."""
    animator = MotionMover(motion, CPU, adapt_scale=True)
    with torch.no_grad():
        encoded = animator.encode(frames_to_tensor(frames[:1], CPU))
        expected = animator.predict(encoded, encoded.keypoints)
    for prediction in predictions(animator, frames[0], [frames[3]] * 3):
        assert_close(prediction, expected[0], atol=1e-4, rtol=0)
    absolute = predictions(MotionMover(motion, CPU, motion="absolute"), frames[0], [frames[3]])
    assert not torch.allclose(absolute, expected, atol=1e-4)


def test_every_clip_starts_anew(animator, frames):
    """Relative motion counts from the first frame of each clip, not from an earlier one's."""
    first = predictions(animator, frames[0], frames[1:3])
    predictions(animator, frames[0], frames[4:])
    assert torch.equal(predictions(animator, frames[0], frames[1:3]), first)


def test_animators_by_name(model, motion, masks):
    moved = build_mover(model, CPU, "motion", motion="absolute", adapt_scale=True)
    assert isinstance(moved, MotionMover)
    assert (moved.branch, moved.motion, moved.adapt_scale) == (motion, "absolute", True)
    masked = build_mover(model, CPU, "masks")
    assert isinstance(masked, MaskMover)
    assert (masked.branch, masked.same_figure) == (masks, False)


def test_animators_of_a_reconstruction(model):
    """The driving frames are the source's own clip: nothing to transfer, nothing to refine."""
    animators = reconstruction_movers(model, CPU)
    assert list(animators) == ["motion", "masks"]
    motion, masks = animators.values()
    assert isinstance(motion, MotionMover)
    assert motion.motion == "absolute"
    assert isinstance(masks, MaskMover)
    assert masks.same_figure


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["masks", "background"], "--animator masks: .* without the branch masks; it has: motion$"),
        (["motion"], "--animator motion: .* the branch motion; it has: masks, background$"),
    ],
)
def test_missing_branch(missing, expected):
    model = Model(tiny_config(*(f"{name}=null" for name in (*missing, "discriminator"))))
    with pytest.raises(UserError, match=expected):
        build_mover(model, CPU, missing[0])
    assert missing[0] not in reconstruction_movers(model, CPU)


def test_driving_frames_come_back_as_they_went_in(animator, frames):
    batches = [batch for batch, _ in animate(animator, frames[0], iter(frames), batch_size=4)]
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

    stream = animate(animator, frames[0], endless(), batch_size=3)
    assert consumed == 0
    for count in (3, 6, 9):
        next(stream)
        assert consumed == count


def test_no_driving_frames_no_predictions(animator, frames):
    assert list(animate(animator, frames[0], [])) == []


def test_batched():
    assert list(batched("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
