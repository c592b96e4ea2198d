"""Scores against the rendered truth: by hand, and for pictures whose quality is known."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from benchmarks.puppet_scenes import build_scene, driving_frames
from benchmarks.puppet_scores import Cutout, animation_scores, swap_scores
from datasets.puppets.clips import Puppets, render

CPU = torch.device("cpu")
CLIPS = Puppets("test", num_clips=3, num_frames=9, image_size=(32, 48), seed=0)
FRAMES = [4, 8]


@pytest.fixture(scope="module", params=["own", "another"])
def scene(request):
    return build_scene(CLIPS, 1, request.param, FRAMES, CPU)


def decibels(mean_square):
    return torch.tensor([-10 * math.log10(mean_square)])


def numpy_truth(identity, driving, background):
    """Rendered frames and foreground masks, N x H x W (x 3)."""
    renderings = [
        render(
            CLIPS.identity(identity), CLIPS.pose(driving, t), CLIPS.background(background), (32, 48)
        )
        for t in FRAMES
    ]
    return [np.stack(arrays) for arrays in zip(*renderings, strict=True)]


def mean_l1(pictures, truth):
    return np.abs(pictures.movedim(1, -1).numpy() - truth).mean(axis=(1, 2, 3))


class TestByHand:
    """Scores of a row of four pixels: the figure, its soft edge, and two of background."""

    color = torch.tensor([0.5, 0.1, 0.0, 0.0]).view(1, 1, 1, 4).repeat(1, 3, 1, 1)
    figure = Cutout(color, torch.tensor([1.0, 0.2, 0.0, 0.0]).view(1, 1, 1, 4))
    new = torch.full((1, 3, 1, 4), 0.6)
    old = torch.full((1, 3, 1, 4), 0.9)

    def test_truth_and_regions(self):
        expected = torch.tensor([0.5, 0.1 + 0.8 * 0.6, 0.6, 0.6])
        assert_close(self.figure.on(self.new)[0, 1, 0], expected)
        assert self.figure.inside.flatten().tolist() == [True, False, False, False]
        assert self.figure.outside.flatten().tolist() == [False, False, True, True]

    def test_swap(self):
        result = torch.tensor([0.45, 0.0, 0.7, 0.5]).view(1, 1, 1, 4).repeat(1, 3, 1, 1)
        scores = swap_scores(result, self.figure, self.new, self.old)
        background = decibels((0.1**2 + 0.1**2) / 2)
        old = decibels((0.2**2 + 0.4**2) / 2)
        frame = decibels((0.05**2 + 0.58**2 + 0.1**2 + 0.1**2) / 4)
        expected = {
            "psnr": frame,
            "background_psnr": background,
            "figure_psnr": decibels(0.05**2),
            "swap_gain_db": background - old,
            "figure_gain_db": decibels(0.05**2) - decibels(0.1**2),
        }
        assert_close(scores, expected, atol=1e-4, rtol=0)


def test_the_truth_is_the_rendered_picture(scene):
    driving = {"own": 1, "another": 2}[scene.driver]
    for background, name in ((1, "old_background"), (0, "new_background")):
        frames, foreground_masks = numpy_truth(1, driving, background)
        truth = scene.figure.on(getattr(scene, name))
        assert_close(truth.movedim(1, -1).numpy(), frames, atol=1e-6, rtol=0)
        assert_close(scene.figure.inside[:, 0].numpy(), foreground_masks > 0.5)


def test_what_the_networks_are_given(scene):
    driving = {"own": 1, "another": 2}[scene.driver]
    as_pictures = {
        "source": (scene.source, CLIPS.read(1, [0])),
        "driving": (scene.driving, CLIPS.read(driving, FRAMES)),
        "same": (scene.third_images["same"], CLIPS.read(0, FRAMES)),
    }
    for given, expected in as_pictures.values():
        assert_close(given.movedim(1, -1).mul(255).round().byte().numpy(), expected)
    empty = scene.third_images["other"]
    assert_close(empty, scene.new_background.expand_as(empty), atol=0.5001 / 255, rtol=0)


def test_driving_frames_are_later_than_the_source():
    assert driving_frames(CLIPS, 4) == [2, 4, 6, 8]
    assert driving_frames(CLIPS, 1) == [8]
    assert driving_frames(CLIPS, 100) == list(range(1, 9))


def test_the_truth_is_a_perfect_swap(scene):
    truth = scene.figure.on(scene.new_background)
    scores = swap_scores(truth, scene.figure, scene.new_background, scene.old_background)
    for name in ("psnr", "background_psnr", "figure_psnr"):
        assert_close(scores[name], torch.full((2,), 100.0))
    assert scores["swap_gain_db"].min() > 30
    assert scores["figure_gain_db"].min() > 30


def test_a_figure_on_the_old_background_is_no_swap(scene):
    """The figure is right, but stands on the source's background."""
    unswapped = scene.figure.on(scene.old_background)
    scores = swap_scores(unswapped, scene.figure, scene.new_background, scene.old_background)
    assert scores["swap_gain_db"].max() < -30
    assert scores["figure_gain_db"].min() > 10  # only its soft edge shows the old background


def test_an_empty_mask_is_no_figure(scene):
    empty = scene.new_background.expand_as(scene.driving)
    scores = swap_scores(empty, scene.figure, scene.new_background, scene.old_background)
    assert_close(scores["figure_gain_db"], torch.zeros(2))
    assert scores["swap_gain_db"].min() > 30
    assert scores["psnr"].max() < 30


def test_the_truth_is_a_perfect_animation(scene):
    truth = scene.figure.on(scene.old_background)
    scores = animation_scores(truth, scene.figure, scene.old_background, scene.source_inside)
    assert_close(scores["l1"], torch.zeros(2))
    assert_close(scores["figure_l1"], torch.zeros(2))
    assert_close(scores["ssim"], torch.ones(2))
    for name in ("psnr", "figure_psnr"):
        assert_close(scores[name], torch.full((2,), 100.0))


def test_a_ghost_of_the_source_counts_in_figure_l1_only(scene):
    """The picture is the truth, with the source's figure left where the driving figure is not."""
    truth = scene.figure.on(scene.old_background)
    ghost = scene.source_inside & ~scene.figure.inside
    haunted = torch.where(ghost, scene.source, truth)
    scores = animation_scores(haunted, scene.figure, scene.old_background, scene.source_inside)
    region = (scene.source_inside | scene.figure.inside).sum(dim=(1, 2, 3))
    expected = (haunted - truth).abs().sum(dim=(1, 2, 3)) / (3 * region)
    assert_close(scores["figure_l1"], expected)
    assert scores["figure_l1"].min() > 0.01
    assert_close(scores["figure_psnr"], torch.full((2,), 100.0))
