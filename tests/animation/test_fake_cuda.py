"""Animation on a CUDA device that is not there, as in tests/training/test_fake_cuda.py."""

from unittest.mock import patch

import pytest
import torch

from animation.acceleration import optimize_for_inference
from animation.background_swap import BackgroundSwapper
from animation.branch_animators import build_animator, reconstruction_animators
from branches.model import Model
from tests.helpers.factories import noise_frames
from tests.helpers.fake_cuda import CUDA, WaitsAndCopies, fake_cuda, move_to_cuda, on_cuda
from tests.helpers.lively import KINDS, kind_config

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def frames_and_model(kind, dtype):
    overrides = ("motion.avd.code=8",) if kind == "tpsmm" else ()
    config = kind_config(kind, *overrides)
    model = optimize_for_inference(Model(config), dtype)
    return noise_frames(3, config.data.size), model


def move_twice(animator, frames):
    """Move the first frame by the others twice, as two batches of a clip; the second prediction,
    and what it waits for. In the first batch the host may read the scale of relative motion.
    """
    move = animator.start(frames[:1])
    with patch("animation.branch_animators.movement_scale", lambda *_: 1.0):
        move(frames[1:])
    with WaitsAndCopies() as waits:
        prediction = move(frames[1:])
    return prediction, waits.found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_motion_model_and_mode(kind, dtype):
    frames, model = frames_and_model(kind, dtype)
    with fake_cuda(), torch.inference_mode():
        move_to_cuda(model)
        frames = on_cuda(frames)
        animators = [build_animator(model, CUDA, "motion", motion=m) for m in model.motion.modes]
        for animator in (*animators, *reconstruction_animators(model, CUDA).values()):
            prediction, waits = move_twice(animator, frames)
            assert waits == []
            assert (prediction.device, prediction.dtype) == (CUDA, torch.float32)
            assert prediction.shape == frames[1:].shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_and_backgrounds(dtype):
    frames, model = frames_and_model("fomm", dtype)
    with fake_cuda(), torch.inference_mode():
        move_to_cuda(model)
        frames = on_cuda(frames)
        prediction, waits = move_twice(build_animator(model, CUDA, "masks"), frames)
        assert waits == []
        for compose in ("network", "alpha"):
            swapper = BackgroundSwapper(model, "same", compose)
            with WaitsAndCopies() as waits:
                swapped = swapper.swap(prediction, frames[:1])
            assert waits.found == []
            assert swapped.result.device == CUDA
            assert swapped.result.shape == frames[1:].shape
