"""The background branch: inputs of its networks, target, start epoch, precision, statistics."""

import pytest
import torch
from torch.testing import assert_close

from branches.background import BackgroundBranch
from branches.model import Model
from losses import perceptual_loss, pixel_loss
from modules.geometry import resize
from tests.helpers.factories import before_start, noise_inputs, tiny_config
from training.step import total

FOREIGN = "background.foreign_probability=1"


def build(*overrides, batch=2):
    """The branch, and inputs that include the output of the mask branch."""
    config = tiny_config(*overrides)
    model = Model(config).train()
    inputs = noise_inputs(config, batch)
    inputs = inputs.with_output("masks", model.masks(inputs))
    branch = model.background
    assert isinstance(branch, BackgroundBranch)
    return branch, inputs


def seen_by(network):
    """Record the input maps of `network` in the returned list, one list for each call."""
    calls = []
    network.register_forward_pre_hook(lambda module, maps: calls.append(list(maps)))
    return calls


def test_the_threshold_itself_is_background():
    branch, _ = build("background.threshold=0.25")
    mask = torch.tensor([0.0, 0.2, 0.25, 0.26, 0.5, 1.0])
    assert branch.binarize(mask).tolist() == [0, 0, 0, 1, 1, 1]
    assert branch.binarize(mask.bfloat16()).dtype == torch.bfloat16


def left_half(value, rest, batch=1):
    """Masks of 16 x 16 with `value` in their left half."""
    mask = torch.full((batch, 1, 16, 16), rest)
    mask[..., :8] = value
    return mask


# A row with an edge between columns 7 and 8 of 16, resized to 32 columns: bilinear interpolation,
# and the new pixel centres lie a quarter of a pixel beside the old ones.
EDGE = torch.tensor([1.0] * 15 + [0.75, 0.25] + [0.0] * 15)


@torch.no_grad()
def test_swap_keeps_the_figure_of_one_frame_and_the_background_of_the_other():
    branch, _ = build()
    base_calls, refine_calls = seen_by(branch.bg_base), seen_by(branch.bg_refine)
    frame, background = torch.full((1, 3, 32, 32), 0.8), torch.full((1, 3, 32, 32), 0.3)
    frame_mask = left_half(0.9, 0.2)  # the figure is on the left
    background_mask = left_half(0.1, 0.7)  # on the right, to be removed
    swap = branch.eval().swap(frame, frame_mask, background, background_mask)

    seen_background_mask, seen_frame_mask, figure, scenery = base_calls[0]
    assert torch.equal(seen_background_mask, background_mask)
    assert torch.equal(seen_frame_mask, frame_mask)
    assert_close(figure, (0.8 * left_half(1.0, 0.0)).expand(1, 3, 16, 16))
    assert_close(scenery, (0.3 * left_half(1.0, 0.0)).expand(1, 3, 16, 16))

    base, seen_background_mask, seen_frame_mask, figure, scenery = refine_calls[0]
    assert torch.equal(base, swap.base)
    columns = EDGE.expand(1, 1, 32, 32)
    assert_close(seen_background_mask, 0.7 - 0.6 * columns)
    assert_close(seen_frame_mask, 0.2 + 0.7 * columns)
    assert_close(figure, (0.8 * columns).expand(1, 3, 32, 32))
    assert_close(scenery, (0.3 * columns).expand(1, 3, 32, 32))
    assert torch.equal(swap.foreground, figure)
    assert torch.equal(swap.background, scenery)
    assert swap.base.shape == swap.refined.shape == (1, 3, 32, 32)


@torch.no_grad()
@pytest.mark.parametrize(
    ("inputs", "is_background"),
    [
        (["source_mask"], [True]),
        (["driving_mask"], [False]),
        (["driving_mask", "source_mask"], [True, False]),
        ([], []),
    ],
)
def test_both_networks_see_the_chosen_masks_alone(inputs, is_background):
    """In the order of the published input channels, whatever that of the list."""
    branch, _ = build(f"background.inputs=[{', '.join(inputs)}]")
    base_calls, refine_calls = seen_by(branch.bg_base), seen_by(branch.bg_refine)
    picture = torch.full((1, 3, 32, 32), 0.5)
    frame_mask, background_mask = left_half(0.9, 0.2), left_half(0.1, 0.7)
    branch.eval().swap(picture, frame_mask, picture, background_mask)
    expected = [background_mask if found else frame_mask for found in is_background]
    *masks, figure, scenery = base_calls[0]
    assert [mask.tolist() for mask in masks] == [mask.tolist() for mask in expected]
    assert figure.shape == scenery.shape == (1, 3, 16, 16)
    _, *masks, figure, scenery = refine_calls[0]
    assert [mask.tolist() for mask in masks] == [resize(m, (32, 32)).tolist() for m in expected]
    assert figure.shape == scenery.shape == (1, 3, 32, 32)
    assert branch.bg_base.first.conv.in_channels == len(inputs) + 6


@torch.no_grad()
def test_soft_cut_outs_are_weighted_by_the_masks():
    branch, _ = build("background.soft=true")
    base_calls = seen_by(branch.bg_base)
    frame, background = torch.full((1, 3, 32, 32), 0.8), torch.full((1, 3, 32, 32), 0.5)
    frame_mask, background_mask = left_half(0.9, 0.2), left_half(0.1, 0.7)
    swap = branch.eval().swap(frame, frame_mask, background, background_mask)
    *_, figure, scenery = base_calls[0]
    assert_close(figure, (0.8 * left_half(0.9, 0.2)).expand(1, 3, 16, 16))
    assert_close(scenery, (0.5 * left_half(0.9, 0.3)).expand(1, 3, 16, 16))
    columns = EDGE.expand(1, 1, 32, 32)
    assert_close(swap.foreground, (0.8 * (0.2 + 0.7 * columns)).expand(1, 3, 32, 32))
    assert_close(swap.background, (0.5 * (0.3 + 0.6 * columns)).expand(1, 3, 32, 32))


@torch.no_grad()
def test_each_input_of_bg_refine_depends_on_its_own_frame():
    """`foreground` changes only with the figure's frame, `background` only with the other one."""
    branch, inputs = build()
    source, driving = inputs.source, inputs.driving
    masks = left_half(0.9, 0.1, batch=2), left_half(0.1, 0.9, batch=2)
    plain = branch.swap(driving, masks[0], source, masks[1])
    other_figure = branch.swap(driving.flip(-2), masks[0], source, masks[1])
    other_scenery = branch.swap(driving, masks[0], source.flip(-2), masks[1])
    assert torch.equal(plain.background, other_figure.background)
    assert torch.equal(plain.foreground, other_scenery.foreground)
    assert torch.equal(plain.foreground[..., :15], driving[..., :15])
    assert not plain.foreground[..., 17:].any()
    assert torch.equal(plain.background[..., :15], source[..., :15])


def test_swap_itself_detaches_the_masks():
    branch, inputs = build()
    masks = [left_half(0.9, 0.1, batch=2).requires_grad_() for _ in range(2)]
    swap = branch.swap(inputs.driving, masks[0], inputs.source, masks[1])
    found = torch.autograd.grad(swap.base.sum() + swap.refined.sum(), masks, allow_unused=True)
    assert found == (None, None)


@torch.no_grad()
def test_background_without_a_figure_stays_whole():
    branch, inputs = build()
    nothing = torch.zeros(2, 1, 16, 16)
    swap = branch.swap(inputs.driving, left_half(0.9, 0.1, batch=2), inputs.source, nothing)
    assert torch.equal(swap.background, inputs.source)


def test_in_training_the_driving_figure_comes_on_the_background_of_its_source():
    branch, inputs = build("background.losses.pixel=1")
    base_calls = seen_by(branch.bg_base)
    before = inputs.context.random.generator.get_state()
    output = branch(inputs)
    masks = inputs.outputs.masks
    seen_background_mask, seen_frame_mask, *_ = base_calls[0]
    assert torch.equal(seen_background_mask, masks.source_mask)
    assert torch.equal(seen_frame_mask, masks.driving_mask)
    inside = resize((masks.driving_mask > 0.4).float(), (32, 32))
    outside = resize((masks.source_mask <= 0.4).float(), (32, 32))
    assert_close(output.swap.foreground, inputs.driving * inside)
    assert_close(output.swap.background, inputs.source * outside)
    assert output.target is inputs.driving
    assert torch.equal(inputs.context.random.generator.get_state(), before)  # nothing is drawn
    terms = branch.loss_terms(inputs, output)
    assert list(terms) == ["base_perceptual", "base_pixel", "refine_perceptual", "refine_pixel"]
    assert_close(terms["base_pixel"].value, pixel_loss(output.swap.base, inputs.driving))
    assert_close(terms["refine_pixel"].value, pixel_loss(output.swap.refined, inputs.driving))


def test_foreign_background_has_no_mask_and_the_target_is_a_composite():
    branch, inputs = build(FOREIGN, "background.losses.pixel=1", batch=3)
    base_calls = seen_by(branch.bg_base)
    output = branch(inputs)
    assert not base_calls[0][0].any()
    others = inputs.source[[2, 0, 1]]
    assert torch.equal(output.swap.background, others)
    alpha = resize(inputs.outputs.masks.driving_mask, (32, 32)).detach()
    target = alpha * inputs.driving + (1 - alpha) * others
    assert_close(output.target, target)
    terms = branch.loss_terms(inputs, output)
    assert_close(terms["base_pixel"].value, pixel_loss(output.swap.base, target))
    # The target's features are its own, not those of the driving frame.
    weights, perceptual = branch.losses.perceptual, inputs.perceptual
    expected = perceptual_loss(perceptual(output.swap.refined), perceptual(target), weights)
    assert_close(terms["refine_perceptual"].value, expected.value)
    assert "refine_perceptual" in terms


@torch.no_grad()
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), []),
        (("skip",), ["figure", "scenery"]),
        (("skip_base",), ["base"]),
        (("skip", "skip_base"), ["figure", "scenery", "base"]),
    ],
)
def test_what_bg_refine_may_show(overrides, expected):
    """With a weight of nearly 1 for one picture, that one is the result."""
    branch, inputs = build(*(f"background.bg_refine.{key}=true" for key in overrides))
    branch.eval()
    bias = branch.bg_refine.final_hourglass.bias
    assert len(bias) == 3 + bool(expected) + len(expected)
    for place, name in enumerate(expected, start=4):
        bias[3:] = 0
        bias[place] = 100
        swap = branch(inputs).swap
        shown = {"figure": swap.foreground, "scenery": swap.background, "base": swap.base}
        assert_close(swap.refined, shown[name])


def test_some_backgrounds_are_foreign():
    branch, inputs = build("background.foreign_probability=0.5", batch=12)
    output = branch(inputs)
    foreign = (output.target != inputs.driving).flatten(1).any(dim=1)
    assert 1 <= foreign.sum() <= 11
    rolled = inputs.source.roll(1, dims=0)
    assert torch.equal(output.swap.background[foreign], rolled[foreign])
    outside = resize((inputs.outputs.masks.source_mask <= 0.4).float(), (32, 32))
    assert_close(output.swap.background[~foreign], (inputs.source * outside)[~foreign])
    again = branch(inputs)  # drawn anew, from the generator
    assert not torch.equal(again.target, output.target)
    inputs.context.random.generator.manual_seed(3)
    first = branch(inputs).target
    inputs.context.random.generator.manual_seed(3)
    assert torch.equal(branch(inputs).target, first)


def with_masks(inputs, source_mask):
    masks = inputs.outputs.masks._replace(source_mask=source_mask)
    return inputs.with_output("masks", masks)


def test_the_figure_of_another_sample_leaves_a_hole_too():
    """The target stays the driving frame, which shows what was there."""
    branch, inputs = build("background.hole_probability=1", batch=3)
    own = torch.zeros(3, 1, 16, 16)
    for index in range(3):
        own[index, :, 4 * index : 4 * index + 4] = 0.9  # each figure is in rows of its own
    inputs = with_masks(inputs, own)
    base_calls, refine_calls = seen_by(branch.bg_base), seen_by(branch.bg_refine)
    output = branch(inputs)
    both = torch.maximum(own, own[[2, 0, 1]])
    assert torch.equal(base_calls[0][0], both)
    assert torch.equal(refine_calls[0][1], resize(both, (32, 32)))
    outside = resize((both <= 0.4).float(), (32, 32))
    assert torch.equal(output.swap.background, inputs.source * outside)
    assert output.target is inputs.driving
    assert torch.equal(inputs.outputs.masks.source_mask, own)


def test_some_samples_have_another_hole():
    branch, inputs = build("background.hole_probability=0.5", batch=12)
    own = torch.zeros(12, 1, 16, 16)
    own[range(12), :, range(12)] = 1.0
    inputs = with_masks(inputs, own)
    base_calls = seen_by(branch.bg_base)
    branch(inputs)
    branch(inputs)  # drawn anew, from the generator
    first, second = (call[0].sum(dim=(1, 2, 3)) / 16 for call in base_calls)
    assert set(first.tolist()) == {1.0, 2.0}
    assert not torch.equal(first, second)


def test_a_foreign_background_has_no_hole():
    branch, inputs = build(FOREIGN, "background.hole_probability=1")
    base_calls = seen_by(branch.bg_base)
    output = branch(inputs)
    assert not base_calls[0][0].any()
    assert torch.equal(output.swap.background, inputs.source.roll(1, dims=0))


@torch.no_grad()
def test_evaluation_has_neither_foreign_backgrounds_nor_other_holes():
    branch, inputs = build(FOREIGN, "background.hole_probability=1")
    base_calls = seen_by(branch.bg_base)
    before = inputs.context.random.generator.get_state()
    output = branch.eval()(inputs)
    assert torch.equal(base_calls[0][0], inputs.outputs.masks.source_mask)
    assert output.target is inputs.driving
    assert not output.own_target
    assert torch.equal(inputs.context.random.generator.get_state(), before)


@pytest.mark.parametrize("foreign", [0, 1])
def test_branch_does_nothing_before_its_start(foreign):
    branch, inputs = build(f"background.foreign_probability={foreign}")
    before = inputs.context.random.generator.get_state()
    early = before_start(inputs, "background")
    output = branch(early)
    assert output.swap is None
    assert branch.loss_terms(early, output) == {}
    assert branch.pictures(early, output, 2) == {}
    assert branch.statistics(output)["foreground_share"].isfinite()
    assert torch.equal(inputs.context.random.generator.get_state(), before)
    assert branch.loss_terms(inputs, branch(inputs))


def test_terms_follow_the_weights():
    branch, inputs = build("background.losses.pixel=2.5")
    terms = branch.loss_terms(inputs, branch(inputs))
    for name, weight in (("base_perceptual", 10), ("base_pixel", 2.5), ("refine_pixel", 2.5)):
        assert_close(terms[name].weighted, weight * terms[name].value)
    branch, inputs = build(
        "background.losses.perceptual={relu1_1: 0}", "background.losses.pixel=1", FOREIGN
    )
    assert list(branch.loss_terms(inputs, branch(inputs))) == ["base_pixel", "refine_pixel"]


@pytest.mark.parametrize("scale", [0.5, 1])
@pytest.mark.parametrize("size", ["[16, 48]", "[64, 32]"])
def test_sizes_that_are_not_square_and_scales(size, scale):
    branch, inputs = build(f"data.image_size={size}", f"masks.mask_generator.scale={scale}")
    output = branch(inputs)
    assert output.swap.base.shape == output.swap.refined.shape == inputs.source.shape
    total(branch.loss_terms(inputs, output)).backward()


def test_bf16_is_near_float32():
    branch, inputs = build("background.foreign_probability=0.5")
    found = []
    for enabled in (False, True):
        inputs.context.random.generator.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = branch(inputs)
            found.append((output, total(branch.loss_terms(inputs, output))))
    (plain, plain_loss), (half, half_loss) = found
    assert half_loss.dtype == torch.float32
    assert_close(half_loss, plain_loss, rtol=0.05, atol=0)
    for name, tensor in half.swap._asdict().items():
        assert tensor.dtype == torch.float32, name
        assert_close(tensor, getattr(plain.swap, name), atol=0.05, rtol=0)
    half_loss.backward()
    assert all(p.grad.isfinite().all() for p in branch.parameters())


@torch.no_grad()
def test_channels_last_equals_contiguous():
    branch, inputs = build()
    expected = branch(inputs).swap
    layout = torch.channels_last
    branch.to(memory_format=layout)
    frames = {
        name: getattr(inputs, name).contiguous(memory_format=layout)
        for name in ("source", "driving")
    }
    swap = branch(inputs._replace(**frames)).swap
    assert_close(swap.base, expected.base, atol=1e-4, rtol=0)
    assert_close(swap.refined, expected.refined, atol=1e-4, rtol=0)


def test_share_of_the_foreground():
    branch, inputs = build("background.threshold=0.3")
    masks = inputs.outputs.masks
    driving_mask = torch.tensor([0.2, 0.3, 0.4, 0.9]).view(1, 1, 1, 4).expand(2, 1, 16, 4)
    inputs = inputs.with_output(
        "masks", masks._replace(driving_mask=driving_mask.repeat(1, 1, 1, 4))
    )
    statistics = branch.statistics(branch(inputs))
    assert {name: value.item() for name, value in statistics.items()} == {"foreground_share": 0.5}


@torch.no_grad()
@pytest.mark.parametrize("foreign", [0, 1])
def test_pictures(foreign):
    branch, inputs = build(f"background.foreign_probability={foreign}")
    pictures = branch.pictures(inputs, branch(inputs), 2)
    assert list(pictures) == ["foreground", "background", "BGBase", "BGRefine", "target"]
    for picture in pictures.values():
        assert picture.shape == inputs.source.shape
        assert 0 <= picture.min() <= picture.max() <= 1
