"""Animators of motion and masks: formulas, reference frame, smoothing, streaming, memory."""

import logging
import weakref

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from animation.branch_animators import (
    MaskAnimator,
    MotionAnimator,
    animate,
    build_animator,
    frames_to_tensor,
    in_batches,
    reconstruction_animators,
)
from animation.smoothing import Smoothing, one_euro, smooth_keypoints
from branches.masks import MaskBranch
from branches.model import Model
from branches.motion.fomm import FommBranch
from common.errors import UserError
from modules.keypoint_transfer import first_keypoints, movement_scale, relative_keypoints
from modules.perturbation import shrink
from tests.helpers.factories import noise_inputs, tiny_config
from tests.helpers.memory import memory_for

CONFIG = tiny_config("data.image_size=[32, 48]")
CPU = torch.device("cpu")
SMOOTHING = Smoothing(25)


@pytest.fixture(scope="module")
def model():
    """An untrained model whose masks and BatchNorm statistics are not trivial."""
    model = Model(CONFIG)
    masks = model.masks
    assert isinstance(masks, MaskBranch)
    masks.train()
    with torch.no_grad():
        for _ in range(20):
            masks(noise_inputs(CONFIG))
    return model.eval()


@pytest.fixture(scope="module")
def masks(model):
    return model.masks


@pytest.fixture(scope="module")
def motion(model):
    """A motion branch whose keypoints, Jacobians and BatchNorm statistics are not trivial."""
    branch = model.motion
    assert isinstance(branch, FommBranch)
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
    return MotionAnimator(motion, CPU)


@pytest.fixture(scope="module")
def frames():
    """Six smooth frames, uint8 N x 32 x 48 x 3; the first one is the source."""
    images = noise_inputs(CONFIG, batch=6).driving
    return (images * 255).round().byte().movedim(1, -1).numpy().copy()


def predictions(animator, source, driving, batch_size=8, reference=None):
    batches = animate(animator, source, iter(driving), batch_size, reference)
    return torch.cat([prediction for _, prediction in batches])


def test_absolute_motion_equals_the_branch_in_evaluation_mode(motion, frames):
    source, driving = frames[0], frames[1:]
    animated = predictions(MotionAnimator(motion, CPU, motion="absolute"), source, driving)
    inputs = noise_inputs(CONFIG)._replace(
        source=frames_to_tensor(np.stack([source] * 5), CPU), driving=frames_to_tensor(driving, CPU)
    )
    with torch.no_grad():
        expected = motion(inputs).prediction
    assert_close(animated, expected, atol=1e-5, rtol=0)


def test_masks_equal_the_formula(masks, frames):
    """H(.., R(down(S), m(S), P(m(D)))), or H(.., m(D)) if the driving figure is the source's."""
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
        animator = MaskAnimator(masks, CPU, same_figure=same_figure)
        animated = predictions(animator, frames[0], frames[1:])
        assert_close(animated, expected[same_figure], atol=1e-5, rtol=0)
    assert not torch.allclose(expected[False], expected[True], atol=1e-3)


@pytest.mark.parametrize("smoothing", [None, SMOOTHING])
@pytest.mark.parametrize("kind", ["relative", "absolute", "masks"])
def test_batch_size_does_not_change_the_result(motion, masks, frames, kind, smoothing):
    if kind == "masks":
        animator = MaskAnimator(masks, CPU, smoothing=smoothing)
    else:
        animator = MotionAnimator(motion, CPU, motion=kind, adapt_scale=True, smoothing=smoothing)
    one = predictions(animator, frames[0], frames[1:], batch_size=1)
    for size in (2, 5, 8):
        many = predictions(animator, frames[0], frames[1:], batch_size=size)
        assert_close(many, one, atol=1e-5, rtol=0)
    assert (one - one[0]).abs().max() > 1e-3  # the driving frames matter


def test_still_driving_clip_leaves_the_source_still(motion, frames):
    """In relative motion a still clip of any figure gives the source's own keypoints."""
    animator = MotionAnimator(motion, CPU, adapt_scale=True)
    with torch.no_grad():
        encoded = motion.encode(frames_to_tensor(frames[:1], CPU))
        expected = motion.predict(encoded, encoded.keypoints)
    for prediction in predictions(animator, frames[0], [frames[3]] * 3):
        assert_close(prediction, expected[0], atol=1e-4, rtol=0)
    absolute = predictions(MotionAnimator(motion, CPU, motion="absolute"), frames[0], [frames[3]])
    assert not torch.allclose(absolute, expected, atol=1e-4)


def test_the_reference_frame_does_not_move_the_source(motion, frames):
    """Other frames move it by their change since the reference frame, at the scale there."""
    animator = MotionAnimator(motion, CPU, adapt_scale=True)
    source, driving = frames_to_tensor(frames[:1], CPU), frames_to_tensor(frames[1:], CPU)
    with torch.no_grad():
        encoded = motion.encode(source)
        keypoints = motion.keypoint_detector(driving)
        reference = first_keypoints(motion.keypoint_detector(driving[3:]))
        scale = movement_scale(encoded.keypoints, reference)
        moved = relative_keypoints(encoded.keypoints, keypoints, reference, scale)
        expected = motion.predict(encoded, moved)
        still = motion.predict(encoded, encoded.keypoints)
    animated = predictions(animator, frames[0], frames[1:], 2, reference=frames[4])
    assert_close(animated, expected, atol=1e-4, rtol=0)
    assert_close(animated[3:4], still, atol=1e-4, rtol=0)
    assert (animated[0] - still[0]).abs().max() > 1e-3
    assert scale != pytest.approx(1, abs=0.01)


def test_first_frame_is_the_reference_by_default(animator, frames):
    given = predictions(animator, frames[0], frames[1:], reference=frames[1])
    assert_close(predictions(animator, frames[0], frames[1:]), given, atol=1e-5, rtol=0)


def test_absolute_motion_and_masks_have_no_reference(motion, masks, frames):
    for animator in (MotionAnimator(motion, CPU, motion="absolute"), MaskAnimator(masks, CPU)):
        given = predictions(animator, frames[0], frames[1:], reference=frames[4])
        assert torch.equal(given, predictions(animator, frames[0], frames[1:]))


@pytest.mark.parametrize("transfer", ["relative", "absolute"])
def test_driving_keypoints_are_smoothed_before_they_move_the_source(motion, frames, transfer):
    animator = MotionAnimator(motion, CPU, motion=transfer, smoothing=SMOOTHING)
    with torch.no_grad():
        encoded = motion.encode(frames_to_tensor(frames[:1], CPU))
        detected = motion.keypoint_detector(frames_to_tensor(frames[1:], CPU))
        moved, _ = smooth_keypoints(detected, SMOOTHING, None)
        if transfer == "relative":
            moved = relative_keypoints(encoded.keypoints, moved, first_keypoints(detected))
        expected = motion.predict(encoded, moved)
    assert_close(predictions(animator, frames[0], frames[1:]), expected, atol=1e-4, rtol=0)
    plain = predictions(MotionAnimator(motion, CPU, motion=transfer), frames[0], frames[1:])
    assert (plain[1:] - expected[1:]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("same_figure", [False, True])
def test_driving_masks_are_smoothed_before_their_refinement(masks, frames, same_figure):
    source = frames_to_tensor(frames[:1], CPU).expand(5, -1, -1, -1)
    with torch.no_grad():
        source_masks = masks.mask_generator(source)
        generated = masks.mask_generator(frames_to_tensor(frames[1:], CPU))
        target, _ = one_euro(generated, SMOOTHING, None)
        if not same_figure:
            target = masks.animated_mask(source, source_masks, target)
        expected = masks.generate(source, source_masks, target)[1]
    animator = MaskAnimator(masks, CPU, same_figure=same_figure, smoothing=SMOOTHING)
    assert_close(predictions(animator, frames[0], frames[1:]), expected, atol=1e-5, rtol=0)


def test_every_clip_starts_anew(motion, frames):
    """Relative motion and the filter start at the first frame of each clip."""
    animator = MotionAnimator(motion, CPU, smoothing=SMOOTHING)
    first = predictions(animator, frames[0], frames[1:3])
    predictions(animator, frames[0], frames[4:])
    assert torch.equal(predictions(animator, frames[0], frames[1:3]), first)


def test_animators_by_name(model, motion, masks):
    settings = {"adapt_scale": True, "smoothing": SMOOTHING}
    moved = build_animator(model, CPU, "motion", motion="absolute", **settings)
    assert isinstance(moved, MotionAnimator)
    assert (moved.branch, moved.motion, moved.adapt_scale) == (motion, "absolute", True)
    assert moved.smoothing == SMOOTHING
    masked = build_animator(model, CPU, "masks", smoothing=SMOOTHING)
    assert isinstance(masked, MaskAnimator)
    assert (masked.branch, masked.same_figure, masked.smoothing) == (masks, False, SMOOTHING)


def test_animators_of_a_reconstruction(model):
    """The driving frames are from the source's own clip: absolute motion, no refinement."""
    animators = reconstruction_animators(model, CPU)
    assert list(animators) == ["motion", "masks"]
    motion, masks = animators.values()
    assert isinstance(motion, MotionAnimator)
    assert motion.motion == "absolute"
    assert isinstance(masks, MaskAnimator)
    assert masks.same_figure
    assert motion.smoothing is masks.smoothing is None


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
        build_animator(model, CPU, missing[0])
    assert missing[0] not in reconstruction_animators(model, CPU)


def test_driving_frames_are_returned_unchanged(animator, frames):
    batches = [batch for batch, _ in animate(animator, frames[0], iter(frames), batch_size=4)]
    assert [len(batch) for batch in batches] == [4, 2]
    assert np.array_equal(np.concatenate(batches), frames)


def test_another_size_is_a_user_error(animator, frames):
    small = frames[1:, :16, :16]
    with pytest.raises(UserError, match="frames are 16 x 16 pixels, the source 48 x 32"):
        predictions(animator, frames[0], small)
    with pytest.raises(UserError, match="reference frame is 16 x 16 pixels, the source 48 x 32"):
        predictions(animator, frames[0], frames[1:], reference=small[0])


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


def test_without_driving_frames_there_are_no_predictions(animator, frames):
    assert list(animate(animator, frames[0], [])) == []


@pytest.mark.parametrize("kind", ["motion", "masks"])
def test_out_of_memory_halves_the_batch(motion, masks, frames, kind, caplog):
    """The smaller size stays, each halving gives one warning, the filter counts no frame twice."""
    animator, network = {
        "motion": (MotionAnimator(motion, CPU, smoothing=SMOOTHING), motion.dense_motion),
        "masks": (MaskAnimator(masks, CPU, smoothing=SMOOTHING), masks.high_resolution),
    }[kind]
    driving = np.concatenate((frames[1:], frames[1:]))
    whole = predictions(animator, frames[0], driving, batch_size=10)
    with memory_for(2, network), caplog.at_level(logging.WARNING):
        batches = list(animate(animator, frames[0], iter(driving), 8))
    assert [len(batch) for batch, _ in batches] == [2] * 5
    assert np.array_equal(np.concatenate([batch for batch, _ in batches]), driving)
    assert_close(torch.cat([prediction for _, prediction in batches]), whole, atol=1e-5, rtol=0)
    assert caplog.messages == [
        "cpu: out of memory with 8 frames of 48 x 32 pixels at a time; going on with 4",
        "cpu: out of memory with 4 frames of 48 x 32 pixels at a time; going on with 2",
    ]


def test_out_of_memory_in_the_middle_of_a_clip(motion, frames):
    """The filter continues from its state after the last successful batch."""
    animator = MotionAnimator(motion, CPU, smoothing=SMOOTHING)
    whole = predictions(animator, frames[0], frames[1:])
    batches = animate(animator, frames[0], iter(frames[1:]), 3)
    found = [next(batches)[1]]
    with memory_for(1, motion.dense_motion):
        found += [prediction for _, prediction in batches]
    assert [len(prediction) for prediction in found] == [3, 1, 1]
    assert_close(torch.cat(found), whole, atol=1e-5, rtol=0)


def test_no_memory_for_one_frame_is_a_user_error(motion, animator, frames):
    with (
        memory_for(0, motion.dense_motion),
        pytest.raises(UserError, match=r"cpu: .* one frame of 48 x 32 pixels; .* --device cpu$"),
    ):
        predictions(animator, frames[0], frames[1:])


def test_other_errors_are_raised_as_they_are(frames):
    def fail(_):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        list(in_batches(fail, frames, 4, CPU))


def test_failed_batch_is_freed_before_its_halves(frames):
    given = []

    def compute(batch):
        assert all(earlier() is None for earlier in given)
        given.append(weakref.ref(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return batch.mean()

    assert len(list(in_batches(compute, frames, 4, CPU))) == 6
    assert len(given) == 8  # 6 single frames, after failed batches of 4 and of 2
