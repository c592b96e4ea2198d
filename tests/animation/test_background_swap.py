"""Cutting the figure out and composing it with a background.

The mask is always 0 in a border of 3 pixels, which the mask generator's last convolution does not
reach. In the image, whose sides are twice as long, these are 6 pixels.
"""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from animation.background_swap import BackgroundSwapper
from animation.figure_masks import ModelMasks
from branches.model import Model
from common.errors import UserError
from tests.helpers.factories import noise_frames, noise_inputs, tiny_config

CONFIG = tiny_config("data.image_size=[32, 48]", "background.threshold=0.5")
KINDS = [("same", "network"), ("same", "alpha"), ("other", "network"), ("other", "alpha")]
MIDDLE = (..., slice(7, 25), slice(7, 41))  # where a saturated mask is 1, also at image size


@pytest.fixture(scope="module")
def model():
    """An untrained model with BatchNorm statistics of its inputs, so that masks differ by frame."""
    model = Model(CONFIG)
    inputs = noise_inputs(CONFIG)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            for name, branch in model.branches.items():
                inputs = inputs.with_output(name, branch(inputs))
    return model.eval()


def constant_masks(model, value):
    """A copy of the model whose masks have the same `value` everywhere but in the border."""
    changed = copy.deepcopy(model)
    generator = changed.masks.mask_generator
    with torch.no_grad():
        generator.ref.weight.zero_()
        generator.ref.bias.fill_(generator.temperature * math.log(value / (1 - value)))
    return changed


@pytest.fixture(scope="module")
def saturated(model):
    """Models whose masks are 0, or 1, everywhere but in the border."""
    return {0: constant_masks(model, 1e-12), 1: constant_masks(model, 1 - 1e-12)}


@pytest.fixture(scope="module")
def frames():
    return noise_frames(6, CONFIG.data.size)[:3]


@pytest.fixture(scope="module")
def backgrounds():
    return noise_frames(6, CONFIG.data.size)[3:]


def outside(pictures):
    """The pixels in the border of the mask, 6 pixels wide: B x 3 x N."""
    is_outside = torch.ones(CONFIG.data.size, dtype=torch.bool)
    is_outside[6:-6, 6:-6] = False
    return pictures[..., is_outside]


@pytest.mark.parametrize(("kind", "compose"), KINDS)
def test_alpha_is_1_on_the_figure_and_0_beside_it(saturated, frames, backgrounds, kind, compose):
    swapped = BackgroundSwapper(saturated[1], kind, compose).swap(frames, backgrounds)
    assert swapped.alpha.shape == (3, 1, 32, 48)
    assert (swapped.alpha[MIDDLE] == 1).all()
    assert (outside(swapped.alpha) == 0).all()
    # At the border's inner corner the mask is (3/4)^2, which is 1/8 of the ramp above half.
    corner = 0.5 + (0.75**2 - 0.5) / 0.5
    expected = torch.tensor(corner**2 * (3 - 2 * corner))
    assert_close(swapped.alpha[0, 0, 6, 6], expected, atol=1e-6, rtol=0)


def test_alpha_lays_the_figure_over_the_background_to_the_last_bit(saturated, frames, backgrounds):
    result = BackgroundSwapper(saturated[1], "other", "alpha").swap(frames, backgrounds).result
    assert torch.equal(result[MIDDLE], frames[MIDDLE])
    assert torch.equal(outside(result), outside(backgrounds))


def test_without_a_figure_the_result_is_the_background(saturated, frames, backgrounds):
    for kind in ("same", "other"):
        swapped = BackgroundSwapper(saturated[0], kind, "alpha").swap(frames, backgrounds)
        assert torch.equal(swapped.result, backgrounds)


def test_figure_of_the_background_is_painted_over(model, frames, backgrounds):
    """With `same` and `alpha`, BGRefine's picture replaces the background's own figure."""
    swapper = BackgroundSwapper(model, "same", "alpha")
    swapped, own_alpha = swapper.swap(frames, backgrounds), swapper.cut_out(backgrounds).alpha
    behind = own_alpha * swapped.refined + (1 - own_alpha) * backgrounds
    expected = swapped.alpha * frames + (1 - swapped.alpha) * behind
    assert_close(swapped.result, expected, atol=1e-6, rtol=0)
    assert (behind - backgrounds).abs().max() > 0.1


@pytest.mark.parametrize(("kind", "compose"), KINDS)
def test_networks_are_those_of_the_branch(model, frames, backgrounds, kind, compose):
    """The background mask is the mask generator's, or zero for a background of another type."""
    swapped = BackgroundSwapper(model, kind, compose).swap(frames, backgrounds)
    masks, branch = model.masks, model.background
    with torch.no_grad():
        mask, background_mask = masks.mask_generator(frames), masks.mask_generator(backgrounds)
        if kind == "other":
            background_mask = torch.zeros_like(mask)
        expected = branch.swap(frames, mask, backgrounds, background_mask)
    assert torch.equal(swapped.foreground_mask, mask)
    assert torch.equal(swapped.background_mask, background_mask)
    if (kind, compose) == ("other", "alpha"):
        assert swapped.base is None
        assert swapped.refined is None
    else:
        assert torch.equal(swapped.base, expected.base)
        assert torch.equal(swapped.refined, expected.refined)
        assert (swapped.result is swapped.refined) == (compose == "network")


def test_type_of_the_background_matters(model, frames, backgrounds):
    for compose in ("network", "alpha"):
        same, other = (
            BackgroundSwapper(model, kind, compose).swap(frames, backgrounds).result
            for kind in ("same", "other")
        )
        assert (same - other).abs().max() > 1e-3


@pytest.mark.parametrize(("kind", "compose"), KINDS)
def test_one_background_for_all_frames(model, frames, backgrounds, kind, compose):
    swapper = BackgroundSwapper(model, kind, compose)
    one = swapper.swap(frames, backgrounds[:1])
    three = swapper.swap(frames, backgrounds[:1].repeat(3, 1, 1, 1))
    for a, b in zip(one, three, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b, atol=1e-5, rtol=0)


class CountedMasks:
    """The masks of `model`; counts the backgrounds that are searched."""

    name = "counted"

    def __init__(self, model, are_given=False):
        self.are_given = are_given
        self.opacity = ModelMasks.of(model).opacity
        self.num_searched = 0
        self._find = model.masks.mask_generator

    def start(self):
        def find(pictures):
            self.num_searched += len(pictures)
            return self._find(pictures)

        return find


@pytest.mark.parametrize("use_networks", [False, True])
def test_a_still_background_is_searched_once(model, frames, backgrounds, use_networks):
    """As long as it is the same tensor, and in each clip anew."""
    masks = CountedMasks(model)
    swapper = BackgroundSwapper(
        model, "same", "alpha", background_masks=masks, use_networks=use_networks
    )
    num_filled = []
    fill = swapper._filler.fill
    swapper._filler.fill = lambda *given: num_filled.append(1) or fill(*given)
    still = backgrounds[:1]
    results = [swapper.swap(frames, still).result for _ in range(2)]
    assert torch.equal(*results)
    assert (masks.num_searched, len(num_filled)) == (1, 0 if use_networks else 1)
    swapper.restart()
    swapper.swap(frames, still)
    assert masks.num_searched == 2
    other = swapper.swap(frames, backgrounds[1:2]).result
    assert masks.num_searched == 3
    assert not torch.equal(other, results[0])
    swapper.swap(frames, backgrounds)
    swapper.swap(frames, backgrounds)
    assert masks.num_searched == 9
    assert torch.equal(swapper.swap(frames, still).result, results[0])


def test_given_masks_of_a_still_background_are_read_for_each_frame(model, frames, backgrounds):
    masks = CountedMasks(model, are_given=True)
    swapper = BackgroundSwapper(model, "same", "alpha", background_masks=masks)
    still = backgrounds[:1]
    for _ in range(2):
        swapper.swap(frames, still)
        swapper.swap(frames[:1], still)
    assert masks.num_searched == 2 * (len(frames) + 1)


def test_cut_out(model, frames, backgrounds):
    cut = BackgroundSwapper(model, "other", "alpha").cut_out(frames)
    swapped = BackgroundSwapper(model, "same", "network").swap(frames, backgrounds)
    assert torch.equal(cut.alpha, swapped.alpha)
    assert torch.equal(cut.foreground_mask, swapped.foreground_mask)
    assert set(cut[2:]) == {None}
    assert cut.alpha.min() < 0.1  # the mask is not constant
    assert cut.alpha.max() > 0.9


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_threshold_of_the_config_is_where_alpha_is_half(model, saturated, frames, threshold):
    """For any threshold, mask values 0 and 1 give opacity 0 and 1."""
    for changed, expected in (
        (saturated[0], 0.0),
        (constant_masks(model, threshold), 0.5),
        (saturated[1], 1.0),
    ):
        changed = copy.deepcopy(changed)
        changed.background.threshold = threshold
        alpha = BackgroundSwapper(changed, "other", "alpha").cut_out(frames).alpha[MIDDLE]
        assert_close(alpha, torch.full_like(alpha, expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("missing", "kind", "compose", "expected"),
    [
        (["masks", "background"], "other", "alpha", "without the mask branch, so no figure can"),
        (["background"], "same", "network", "without the background branch; use --compose alpha"),
        (["background"], "other", "network", "without the background branch"),
    ],
)
def test_missing_branch(missing, kind, compose, expected):
    model = Model(tiny_config(*(f"{name}=null" for name in missing)))
    with pytest.raises(UserError, match=f"the checkpoint was trained .*{expected}"):
        BackgroundSwapper(model, kind, compose)


def test_alpha_needs_no_background_branch(frames, backgrounds):
    model = Model(tiny_config("background=null", "data.image_size=[32, 48]")).eval()
    swapped = BackgroundSwapper(model, "other", "alpha").swap(frames, backgrounds)
    expected = backgrounds + swapped.alpha * (frames - backgrounds)
    assert_close(swapped.result, expected, atol=1e-6, rtol=0)
