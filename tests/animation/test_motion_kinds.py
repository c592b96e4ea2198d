"""Animators of every kind of motion model: what each can do, batches, memory, several sources."""

import functools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from animation.animator import find_reference
from animation.background_swap import BackgroundSwapper
from animation.branch_animators import (
    MotionAnimator,
    animate,
    build_animator,
    choose_mode,
    frames_to_tensor,
    reconstruction_animators,
)
from animation.cropping import Cropper
from animation.inputs import open_driving
from animation.settings import Settings, check_motion, check_sources, describe_motion
from animation.smoothing import Smoothing
from common.errors import UserError
from media.crops import Box
from modules.keypoint_transfer import expand_keypoints
from tests.helpers.factories import noise_inputs
from tests.helpers.lively import KINDS, kind_config, lively_model
from tests.helpers.memory import memory_for

CPU = torch.device("cpu")
FURTHER = [kind for kind in KINDS if kind != "fomm"]
WITH_KEYPOINTS = [kind for kind in FURTHER if kind != "x2face"]


@functools.cache
def build(kind):
    avd = ("motion.avd.code=8",) if kind == "tpsmm" else ()
    return lively_model(kind_config(kind, *avd))


@pytest.fixture(scope="module")
def frames():
    """Six smooth frames, uint8 N x 32 x 64 x 3; the first one is the source."""
    images = noise_inputs(kind_config("fomm"), batch=6).driving
    return (images * 255).round().byte().movedim(1, -1).numpy().copy()


def predictions(animator, frames, batch_size=8, **options):
    batches = animate(animator, frames[0], iter(frames[1:]), batch_size, **options)
    return torch.cat([prediction for _, prediction in batches])


MODES = {
    "monkey_net": ("relative", "absolute"),
    "x2face": ("absolute",),
    "tpsmm": ("relative", "absolute", "avd"),
}
CASES = [(kind, mode) for kind, all_modes in MODES.items() for mode in all_modes]


@pytest.mark.parametrize("kind", FURTHER)
def test_modes_of_a_kind(kind):
    """The default of MotionAnimator is the first; the branch says what the config says."""
    config, branch = kind_config(kind), build(kind).motion
    assert branch.modes == MODES[kind]
    assert MotionAnimator(branch, CPU).motion == MODES[kind][0]
    assert build_animator(build(kind), CPU, "motion").motion == MODES[kind][0]
    assert branch.has_keypoints == (config.motion.num_keypoints is not None)
    assert branch.has_background == config.motion.predicts_background


@pytest.mark.parametrize("kind", FURTHER)
def test_absolute_motion_equals_the_branch_in_evaluation_mode(frames, kind):
    """As in reconstruction, where TPSMM applies the motion of the background."""
    branch = build(kind).motion
    driving = frames_to_tensor(frames[1:], CPU)
    source = frames_to_tensor(frames[:1], CPU).expand(5, -1, -1, -1)
    with torch.no_grad():
        output = branch(noise_inputs(kind_config(kind))._replace(source=source, driving=driving))
    reconstructed = predictions(reconstruction_animators(build(kind), CPU)["motion"], frames)
    assert_close(reconstructed, output.prediction, atol=1e-5, rtol=0)
    absolute = predictions(MotionAnimator(branch, CPU, motion="absolute"), frames)
    differs = (absolute - reconstructed).abs().max() > 1e-3
    assert differs == (kind == "tpsmm")
    encoded = branch.encode(source[:1])
    motion = branch.estimate_motion(encoded, branch.detect(driving), driving)
    assert_close(motion.deformation, output.motion.deformation, atol=1e-5, rtol=0)
    assert (motion.background_weight is not None) == branch.has_background


@pytest.mark.parametrize(("kind", "mode"), CASES)
def test_neither_batches_nor_memory_change_the_result(frames, kind, mode):
    """With too little memory the batch is halved, and what was encoded or filtered stays."""
    branch = build(kind).motion
    smoothing = Smoothing(25) if branch.has_keypoints else None
    animator = MotionAnimator(branch, CPU, motion=mode, smoothing=smoothing)
    whole = predictions(animator, frames)
    assert (whole - whole[0]).abs().max() > 1e-3  # the driving frames matter
    for size in (1, 2):
        assert_close(predictions(animator, frames, size), whole, atol=1e-5, rtol=0)
    network = branch.driving if kind == "x2face" else branch.dense_motion
    num_encoded = count_calls(branch.embedding) if kind == "x2face" else None
    with memory_for(2, network):
        sizes = []
        batches = []
        for batch, prediction in animate(animator, frames[0], iter(frames[1:]), 5):
            sizes.append(len(batch))
            batches.append(prediction)
    assert sizes == [2, 2, 1]
    assert_close(torch.cat(batches), whole, atol=1e-5, rtol=0)
    if num_encoded is not None:
        assert num_encoded() == 1


def count_calls(network):
    """A function that says how often `network` has been called since."""
    calls = []
    network.register_forward_pre_hook(lambda *_: calls.append(1))
    return lambda: len(calls)


@pytest.mark.parametrize("kind", WITH_KEYPOINTS)
def test_relative_motion_starts_at_the_reference_frame(frames, kind):
    """Its own pose leaves the source still; TPSMM scales by the sizes of the figures."""
    branch = build(kind).motion
    animator = MotionAnimator(branch, CPU)
    assert animator.adapt_scale == branch.always_adapts_scale == (kind == "tpsmm")
    moved = predictions(animator, frames, reference=frames[3])
    with torch.no_grad():
        encoded = branch.encode(frames_to_tensor(frames[:1], CPU))
        driving = branch.detect(frames_to_tensor(frames[3:4], CPU))
        # Monkey-Net's keypoints keep the covariance of the driving frame.
        still = branch.predict(encoded, encoded.keypoints._replace(covariance=driving.covariance))
    assert_close(moved[2:3], still, atol=1e-4, rtol=0)
    assert (moved[0] - still[0]).abs().max() > 1e-3


def test_motion_avd_gives_the_driving_pose_the_shape_of_the_source(frames):
    branch = build("tpsmm").motion
    with torch.no_grad():
        encoded = branch.encode(frames_to_tensor(frames[:1], CPU))
        driving = branch.detect(frames_to_tensor(frames[1:], CPU))
        pose = branch.avd(expand_keypoints(encoded.keypoints, 5), driving)
        expected = branch.predict(encoded, pose)
    assert_close(
        predictions(MotionAnimator(branch, CPU, motion="avd"), frames), expected, atol=1e-5, rtol=0
    )


# What a kind cannot do


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (
            "x2face",
            {"motion": "relative"},
            "--motion relative: the motion model, of kind x2face, has no keypoints, which it "
            "needs; use absolute",
        ),
        (
            "x2face",
            {"motion": "avd"},
            "--motion avd: the motion model, of kind x2face, has no network for it (the section "
            "motion.avd of kind tpsmm); use absolute",
        ),
        ("monkey_net", {"motion": "avd"}, "of kind tpsmm); use relative or absolute"),
        (
            "x2face",
            {"adapt_scale": True},
            "--adapt-scale is for relative motion, which the motion model, of kind x2face, does "
            "not have, since it has no keypoints; leave it out",
        ),
        ("x2face", {"reference_frame": "auto"}, "--reference-frame is for relative motion, which"),
        (
            "x2face",
            {"smooth": True},
            "--smooth filters keypoints, and the motion model, of kind x2face, has none; leave it",
        ),
        (
            "tpsmm",
            {"motion": "avd", "reference_frame": 3},
            "--reference-frame is for relative motion: avd motion refers to no frame; leave one",
        ),
        ("monkey_net", {"motion": "absolute", "adapt_scale": True}, "--adapt-scale is for relati"),
    ],
)
def test_refused_in_one_line(kind, settings, expected):
    with pytest.raises(UserError) as error:
        check_motion(Settings(**settings), build(kind).motion, has_masks=False)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_motion_avd_without_its_network():
    branch = lively_model(kind_config("tpsmm", "masks=null", "background=null")).motion
    assert branch.modes == ("relative", "absolute")
    with pytest.raises(UserError, match="of kind tpsmm, has no network for it"):
        choose_mode(branch, "avd")


def test_notes():
    tpsmm, x2face = build("tpsmm").motion, build("x2face").motion
    assert describe_motion(Settings(), tpsmm, 1) == []
    assert describe_motion(Settings(adapt_scale=True), tpsmm, 1) == [
        "--adapt-scale: a motion model of kind tpsmm always does so"
    ]
    assert describe_motion(Settings(), x2face, 3) == [
        "motion absolute: a motion model of kind x2face has no other",
        "3 sources make one figure, whose pixels move",
    ]
    assert describe_motion(Settings(motion="absolute"), x2face, 1) == []


# Several sources


def test_several_sources_are_embedded_once_and_together(frames):
    branch = build("x2face").motion
    animator = MotionAnimator(branch, CPU)
    calls = count_calls(branch.embedding)
    found = predictions(animator, frames, 2, more_sources=frames[4:])
    assert calls() == 1
    with torch.no_grad():
        encoded = branch.encode(frames_to_tensor(frames[[0, 4, 5]], CPU))
        expected = branch.predict(encoded, branch.detect(frames_to_tensor(frames[1:], CPU)))
    assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - predictions(animator, frames)).abs().max() > 1e-3
    swapped = np.concatenate((frames[5:], frames[1:]))  # the order of the sources does not matter
    other = predictions(animator, swapped, more_sources=frames[[4, 0]])
    assert_close(other, found, atol=1e-5, rtol=0)


def test_number_of_sources():
    tpsmm, x2face = (build(kind).motion for kind in ("tpsmm", "x2face"))
    check_sources(1, tpsmm)
    check_sources(3, x2face)
    with pytest.raises(UserError, match="--more-sources: the motion model, of kind tpsmm, takes"):
        check_sources(2, tpsmm)
    with pytest.raises(UserError, match="--more-sources: the animator masks takes one source"):
        check_sources(2, None)
    with pytest.raises(UserError, match="an empty list"):
        check_sources(0, x2face)


# What is built on the keypoints


@pytest.mark.parametrize("kind", WITH_KEYPOINTS)
def test_the_nearest_reference_frame(frames, kind):
    animator = MotionAnimator(build(kind).motion, CPU)
    notes = []
    driving = open_driving(list(frames))
    choice, _ = find_reference(
        animator, frames[0], driving, Settings(reference_frame="auto"), notes
    )
    assert (choice.position, choice.distance) == (0, pytest.approx(0, abs=1e-5))
    assert notes[0].startswith("reference frame 0 of 6: distance 0.000")


@pytest.mark.parametrize("kind", FURTHER)
def test_crops_by_keypoints_only_where_there_are_any(frames, kind):
    """Without masks and a face detector, a model without keypoints finds no figure."""
    model = lively_model(kind_config(kind, "masks=null", "background=null"))
    cropper = Cropper(model, (32, 64), CPU, None)
    found = cropper.figure_box(frames[0])
    clip = cropper.clip_boxes(frames, 25)
    assert len(clip.boxes) == 6
    if model.motion.has_keypoints:
        assert "cropped around the model's keypoints" in found.how
        assert "cropped around the model's keypoints" in clip.how
    else:
        assert found.box == clip.boxes[0] == Box(0, 0, 64, 32)
        assert found.how == clip.how
        assert found.how == (
            "the model has neither masks nor keypoints, and no face detector is installed, cropped "
            "at the centre to 0,0,64,32"
        )


@pytest.mark.parametrize("kind", FURTHER)
def test_background_swap(frames, kind):
    """BGBase and BGRefine paint beside every kind of motion model."""
    model = build(kind)
    animated = predictions(build_animator(model, CPU, "motion"), frames)
    swapped = BackgroundSwapper(model, "same", "network").swap(
        animated, frames_to_tensor(frames[5:], CPU)
    )
    assert swapped.result.shape == animated.shape
    assert (swapped.result - animated).abs().max() > 1e-2
