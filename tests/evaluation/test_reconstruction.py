"""Evaluation over a set of clips: names and values of its metrics."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from branches.masks import MaskBranch
from branches.model import Model
from datasets.puppets.clips import Puppets
from evaluation.reconstruction import (
    evaluate,
    evaluate_masks,
    mean_metrics,
    reconstruct_clip,
    spread,
)
from tests.helpers.factories import MemoryClips, noise_inputs, tiny_config, tiny_perceptual
from tests.helpers.lively import KINDS, kind_config, lively_model
from training.validation import draw_grids, run_branches, validate_model

CPU = torch.device("cpu")
PUPPETS = Puppets("test", num_clips=5, num_frames=6, image_size=(32, 32), seed=0)


class Perfect:
    """An animator that returns the driving frames."""

    device = CPU

    def start(self, source, reference=None):
        return lambda driving: driving


class Still:
    """An animator that never moves the source."""

    device = CPU

    def start(self, source, reference=None):
        return lambda driving: source.expand_as(driving)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_motion_model_is_validated(kind):
    """As in training: with masks beside it, and pictures of what the networks compute."""
    config = kind_config(kind, "data.image_size=32")
    model = lively_model(config)
    log = config.log.model_copy(update={"num_validation_clips": 2, "num_validation_frames": 3})
    means = validate_model(model, PUPPETS, log, CPU, batch_size=2)
    assert {"l1", "baseline_l1", "figure_l1", "masks_l1", "mask_iou"} <= means.keys()
    assert 0 < means["l1"] < 1
    context = noise_inputs(config).context
    inputs = run_branches(model, PUPPETS, 2, CPU, tiny_perceptual(config), context)
    titles = {name: grid.shape for name, grid in draw_grids(model, None, inputs, 2)}
    assert titles.keys() == {"motion", "masks", "background"}


def clip_metrics(animator, index, frames):
    (batch,) = reconstruct_clip(animator, PUPPETS, index, frames)
    return batch.metrics


def evaluated(animators, clips=PUPPETS):
    """Evaluate; of the puppets these are clips 0, 2 and 4, and frames 0, 2, 3 and 5 of each."""
    return evaluate(animators, clips, num_clips=3, num_frames=4, batch_size=3)


class TestEvaluate:
    def test_names_of_one_animator(self):
        names = {"l1", "psnr", "ssim", "figure_l1"}
        means = evaluated({"motion": Still()})
        assert means.keys() == names | {f"baseline_{name}" for name in names}
        means = evaluated({"motion": Still()}, MemoryClips("abc"))
        assert not [name for name in means if "figure" in name]  # the truth is not known

    @pytest.mark.parametrize(("first", "second"), [("motion", "masks"), ("masks", "motion")])
    def test_metrics_of_the_second_animator_have_its_name(self, first, second):
        means = evaluated({first: Perfect(), second: Still()})
        assert means["l1"] == 0
        assert means["psnr"] == 100
        assert means["ssim"] == pytest.approx(1)
        for name in ("l1", "psnr", "ssim", "figure_l1"):
            assert means[f"{second}_{name}"] == pytest.approx(means[f"baseline_{name}"], rel=1e-5)
        assert not [name for name in means if name.startswith((f"{first}_", f"{second}_base"))]

    def test_the_mean_is_over_clips_and_frames_spread_evenly(self):
        means = evaluated({"masks": Still()})
        found = [clip_metrics(Still(), index, [0, 2, 3, 5])["l1"] for index in (0, 2, 4)]
        assert means["l1"] == pytest.approx(torch.cat(found).mean().item(), rel=1e-5)

    def test_the_first_frame_is_the_source(self):
        l1 = clip_metrics(Still(), 0, [2, 3, 5])["l1"]
        assert l1[0] == 0
        assert l1[1:].min() > 0


class TestEvaluateMasks:
    @pytest.fixture
    def branch(self):
        """A mask branch whose masks, 16 x 16, are 1 except for the border of 3 pixels."""
        branch = Model(tiny_config()).masks.eval()
        assert isinstance(branch, MaskBranch)
        with torch.no_grad():
            branch.mask_generator.ref.weight.zero_()
            branch.mask_generator.ref.bias.fill_(10.0)
        return branch

    # Resized to 32 x 32, the mask has the values 0, 0.25, 0.75, 1 across its border, and products
    # of these in the corners.
    @pytest.mark.parametrize(("threshold", "first"), [(0.05, 5), (0.5, 6), (0.9, 7)])
    def test_overlap_by_hand_at_image_size(self, branch, threshold, first):
        means = evaluate_masks(branch, PUPPETS, CPU, threshold=threshold, num_clips=2, num_frames=3)
        truth = np.concatenate([PUPPETS.foreground_masks(i, [0, 2, 5]) > 0.5 for i in (0, 4)])
        found = np.zeros((32, 32), bool)
        found[first : 32 - first, first : 32 - first] = True
        overlap = (truth & found).sum((1, 2)) / (truth | found).sum((1, 2))
        assert means == pytest.approx(
            {"mask_iou": overlap.mean(), "mask_iou_all_white": truth.mean()}, rel=1e-5
        )

    def test_clips_without_true_masks_give_no_metrics(self, branch):
        clips = MemoryClips("abc")
        assert evaluate_masks(branch, clips, CPU, threshold=0.5, num_clips=2, num_frames=2) == {}


def test_spread():
    assert spread(24, 4) == [0, 8, 15, 23]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(10, 1) == [0]


def test_mean_metrics_leaves_out_what_is_not_defined():
    batches = [
        {"l1": torch.tensor([1.0, 2.0]), "figure_l1": torch.tensor([torch.nan, 4.0])},
        {"l1": torch.tensor([6.0]), "figure_l1": torch.tensor([2.0])},
    ]
    assert_close(mean_metrics(batches), {"l1": 3.0, "figure_l1": 3.0})
