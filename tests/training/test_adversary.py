"""The adversary: loss terms of both players, their gradients, mixed images, cut masks, pictures."""

import math

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from branches.model import Model
from tests.helpers.factories import at_epoch, noise_inputs, tiny_config
from training.adversary import build_adversary
from training.optimization import Optimizer
from training.step import total

CPU = torch.device("cpu")
ALONE = ("masks=null", "background=null")


class ConvolutionGradients(TorchDispatchMode):
    """Records which gradients each convolution's backward pass computes: input, weight, bias."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten.convolution_backward.default:
            self.masks.append(args[-1])
        return operation(*args, **(kwargs or {}))


class Players:
    """A tiny model with its outputs for fixed frames, and its adversary."""

    def __init__(self, *overrides, batch=3):
        self.config = tiny_config(*overrides)
        self.model = Model(self.config).train()
        self.adversary = build_adversary(self.config).train()
        self.inputs = noise_inputs(self.config, batch)
        for name, branch in self.model.branches.items():
            self.inputs = self.inputs.with_output(name, branch(self.inputs))

    @property
    def motion(self):
        return self.inputs.outputs.motion

    def at_random(self, host_random):
        """The inputs, in a step with this `host_random`."""
        return self.inputs._replace(context=self.inputs.context._replace(host_random=host_random))

    def generator_terms(self):
        return self.adversary.generator_terms(self.adversary.discriminate(self.inputs))

    def discriminator_terms(self, inputs=None):
        outputs = self.adversary.discriminate(self.inputs if inputs is None else inputs)
        return self.adversary.discriminator_terms(outputs)


def reached(loss, network):
    """Whether each parameter of `network` gets a gradient from `loss`."""
    gradients = torch.autograd.grad(
        loss, list(network.parameters()), allow_unused=True, retain_graph=True
    )
    return [g is not None and bool(g.any()) for g in gradients]


# Gradients of both players


@pytest.mark.parametrize("kind", ["patch", "unet"])
def test_no_gradient_of_one_player_reaches_the_other(kind):
    cut = "none" if kind == "patch" else "priority"
    players = Players(*ALONE, f"discriminator.kind={kind}", f"discriminator.cut.kind={cut}")
    optimizer = Optimizer(players.model, players.adversary, players.config, CPU)
    outputs = players.adversary.discriminate(players.inputs)
    losses = {
        "model": total(players.adversary.generator_terms(outputs)),
        "discriminator": total(players.adversary.discriminator_terms(outputs).terms),
    }
    expected = {
        player: torch.autograd.grad(
            losses[player], parameters, retain_graph=True, allow_unused=True
        )
        for player, parameters in optimizer.players.items()
    }
    optimizer.backward(losses)
    for player, parameters in optimizer.players.items():
        for parameter, gradient in zip(parameters, expected[player], strict=True):
            assert_close(parameter.grad, gradient, atol=1e-7, rtol=1e-4)
    motion = players.model.motion
    for network in (motion.generator, motion.dense_motion, motion.keypoint_detector):
        assert any(p.grad is not None and p.grad.any() for p in network.parameters())
    assert all(p.grad is not None for p in players.adversary.parameters())


@pytest.mark.parametrize("kind", ["patch", "unet"])
def test_nothing_is_computed_for_the_parameters_of_the_other(kind):
    """The discriminator's convolutions run forward once for each image. Its own backward pass
    computes gradients of weights, the model's those of the prediction.
    """
    cut = "none" if kind == "patch" else "priority"
    players = Players(*ALONE, f"discriminator.kind={kind}", f"discriminator.cut.kind={cut}")
    optimizer = Optimizer(players.model, players.adversary, players.config, CPU)
    prediction = players.motion.prediction.detach().requires_grad_()
    players.inputs = players.inputs.with_output(
        "motion", players.motion._replace(prediction=prediction)
    )
    optimizer.players["model"] = [players.motion.prediction]
    outputs = players.adversary.discriminate(players.inputs)
    losses = {
        "model": total(players.adversary.generator_terms(outputs)),
        "discriminator": total(players.adversary.discriminator_terms(outputs).terms),
    }
    with ConvolutionGradients() as found:
        optimizer.backward(losses)
    layers = [m for m in players.adversary.modules() if isinstance(m, torch.nn.Conv2d)]
    images = 2 if kind == "patch" else 3
    of_weights = [mask for mask in found.masks if mask[1]]
    for_the_prediction = [mask for mask in found.masks if not mask[1]]
    assert len(of_weights) == images * len(layers)
    assert len(for_the_prediction) == len(layers)
    assert all(mask[0] for mask in for_the_prediction)
    # The discriminator's own backward pass needs no gradient of the images.
    first = 1 if kind == "patch" else 2  # the U-Net's shortcut is beside its first convolution
    assert [mask[0] for mask in of_weights].count(False) == first * images


def test_all_images_of_a_step_pass_through_the_same_weights():
    players = Players(*ALONE)
    layer = players.adversary.discriminator.down_blocks[0].conv1
    before, seen = layer.weight_u.clone(), []
    layer.register_forward_hook(lambda *_: seen.append(layer.weight.detach().clone()))
    players.adversary.discriminate(players.inputs)
    assert len(seen) == 3
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(layer.weight_u, before)  # one power iteration, for the first image
    assert players.adversary.discriminator.training


def test_each_discriminator_term_trains_the_parts_that_its_logits_come_from():
    players = Players(*ALONE)
    discriminator = players.adversary.discriminator
    terms = players.discriminator_terms().terms
    assert list(terms) == ["encoder", "consistency", "decoder"]
    encoder_alone = reached(terms["encoder"].value, discriminator.up_blocks)
    assert not any(encoder_alone)
    for name in ("consistency", "decoder"):
        for part in (discriminator.down_blocks, discriminator.up_blocks):
            assert any(reached(terms[name].value, part)), name
        assert not any(reached(terms[name].value, discriminator.linear))


def test_the_adversary_leaves_masks_and_background_alone():
    players = Players()
    terms = players.generator_terms()
    for name, term in terms.items():
        for branch in ("masks", "background"):
            assert not any(reached(term.value, players.model.branches[branch])), name
    assert len(terms) == 4


def test_keypoints_get_no_gradient_through_the_heatmaps_of_the_discriminator():
    players = Players(*ALONE, "discriminator.keypoints=true")
    assert players.adversary.discriminator.down_blocks[0].conv1.in_channels == 3 + 4
    heatmaps = players.adversary._heatmaps(players.inputs)
    assert heatmaps.shape == (3, 4, 32, 32)
    assert not heatmaps.requires_grad
    # The maximum lies at the driving keypoint, in x and y.
    x, y = ((players.motion.driving_keypoints.value[0, 0] + 1) / 2 * 31).tolist()
    row, column = divmod(int(heatmaps[0, 0].argmax()), 32)
    assert abs(row - y) <= 0.5
    assert abs(column - x) <= 0.5


# The generator's terms


def test_generator_terms_by_hand():
    players = Players(*ALONE, "discriminator.spectral_norm=false")
    terms = players.generator_terms()
    with torch.no_grad():
        real = players.adversary.discriminator(players.inputs.driving)
        generated = players.adversary.discriminator(players.motion.prediction)
    assert_close(terms["encoder"].value, ((1 - generated.logits) ** 2).mean())
    assert_close(terms["decoder"].value, ((1 - generated.pixel_logits) ** 2).mean())
    for name, sides in (
        ("encoder_features", (real.encoder_features, generated.encoder_features)),
        ("decoder_features", (real.decoder_features, generated.decoder_features)),
    ):
        assert len(sides[0]) == 2
        expected = sum((a - b).abs().mean() for a, b in zip(*sides, strict=True))
        assert_close(terms[name].value, expected)
        assert_close(terms[name].weighted, 10 * expected)


def test_features_with_a_weight_for_each_block():
    """Of the two blocks of the encoder and of the decoder; one with weight 0 is not compared."""
    losses = "discriminator.generator_losses"
    lists = (f"{losses}.encoder_features=[3, 2]", f"{losses}.decoder_features=[0, 5]")
    players = Players(*ALONE, "discriminator.spectral_norm=false", *lists)
    terms = players.generator_terms()
    with torch.no_grad():
        real = players.adversary.discriminator(players.inputs.driving)
        generated = players.adversary.discriminator(players.motion.prediction)

    def difference(part, block):
        return (getattr(real, part)[block] - getattr(generated, part)[block]).abs().mean()

    first, second = (difference("encoder_features", block) for block in (0, 1))
    assert_close(terms["encoder_features"].value, first + second)
    assert_close(terms["encoder_features"].weighted, 3 * first + 2 * second)
    last = difference("decoder_features", 1)
    assert_close(terms["decoder_features"].value, last)
    assert_close(terms["decoder_features"].weighted, 5 * last)


def test_terms_without_weight_are_left_out():
    losses = "discriminator.generator_losses"
    players = Players(*ALONE, f"{losses}.encoder=0", f"{losses}.decoder_features=0")
    terms = players.generator_terms()
    assert list(terms) == ["decoder", "encoder_features"]
    players = Players(*ALONE, f"{losses}.encoder_features=0", f"{losses}.decoder_features=0")
    assert list(players.generator_terms()) == ["encoder", "decoder"]
    patch = Players(*ALONE, "discriminator.kind=patch", "discriminator.cut.kind=none")
    assert list(patch.generator_terms()) == ["encoder", "encoder_features"]


def test_a_prediction_that_is_the_target_has_the_same_features():
    players = Players(*ALONE)
    players.adversary.eval()
    players.inputs = players.inputs.with_output(
        "motion", players.motion._replace(prediction=players.inputs.driving)
    )
    terms = players.generator_terms()
    assert terms["encoder_features"].value == 0
    assert terms["decoder_features"].value == 0


# The discriminator's terms


@pytest.mark.parametrize("as_sample", [False, True])
def test_discriminator_terms_by_hand(as_sample):
    players = Players(
        *ALONE,
        "discriminator.spectral_norm=false",
        "discriminator.losses={encoder: 0.5, decoder: 2, consistency: 3}",
        f"discriminator.cut.as_sample={as_sample}".lower(),
    )
    generator = players.inputs.context.random.generator
    generator.manual_seed(3)
    found = players.discriminator_terms()
    generator.manual_seed(3)
    fraction = torch._sample_dirichlet(torch.ones(3, 2), generator=generator)[:, 0]
    cut = players.adversary.cut(players.inputs, fraction)
    judge = players.adversary.discriminator
    real, generated, mixed = (
        judge(image) for image in (players.inputs.driving, players.motion.prediction, cut.mixed)
    )
    encoder = ((1 - real.logits) ** 2).mean() + (generated.logits**2).mean()
    decoder = ((1 - real.pixel_logits) ** 2).mean() + (generated.pixel_logits**2).mean()
    if as_sample:
        encoder = encoder + (mixed.logits**2).mean()
        target = cut.cut_mask  # 1 where the pixel is real
        decoder = decoder + ((target - mixed.pixel_logits) ** 2).mean()
    mask = cut.cut_mask
    of_parts = mask * real.pixel_logits + (1 - mask) * generated.pixel_logits
    consistency = ((mixed.pixel_logits - of_parts) ** 2).mean()
    for name, value, weight in (
        ("encoder", encoder, 0.5),
        ("decoder", decoder, 2),
        ("consistency", consistency, 3),
    ):
        assert_close(found.terms[name].value, value, rtol=1e-4, atol=1e-6)
        assert_close(found.terms[name].weighted, weight * value, rtol=1e-4, atol=1e-6)
    statistics = found.statistics
    assert_close(statistics["gap"], (real.logits.mean() - generated.logits.mean()))
    assert_close(statistics["real_logits"], real.logits.mean())
    assert_close(statistics["generated_logits"], generated.logits.mean())
    assert_close(statistics["pixel_gap"], real.pixel_logits.mean() - generated.pixel_logits.mean())


def test_consistency_gets_gradients_through_both_of_its_terms():
    """Gradients flow through the logits of the mixed image, and through those of its two parts."""
    players = Players(*ALONE, "discriminator.spectral_norm=false")
    seen = []
    judge = players.adversary.discriminator

    def keep(_module, _inputs, output):
        output.pixel_logits.retain_grad()
        seen.append(output.pixel_logits)

    judge.register_forward_hook(keep)
    terms = players.discriminator_terms().terms
    terms["consistency"].value.backward()
    assert len(seen) == 3  # real, generated, mixed
    assert all(logits.grad.any() for logits in seen)
    whole = sum(logits.grad.sum() for logits in seen)
    assert_close(whole, torch.tensor(0.0), atol=1e-6, rtol=0)


# When images are mixed


def test_the_probability_of_mixing_rises_in_the_warm_up():
    cut = "discriminator.cut"
    adversary = Players(*ALONE, f"{cut}.probability=0.4", f"{cut}.warm_up_epochs=4").adversary
    expected = {0: 0, 1: 0.1, 2.5: 0.25, 4: 0.4, 9: 0.4}
    found = {epoch: adversary.mixing_probability(epoch) for epoch in expected}
    assert found == pytest.approx(expected)
    without = Players(*ALONE, f"{cut}.kind=none").adversary
    assert without.mixing_probability(9) == 0


@pytest.mark.parametrize(
    ("epoch", "host_random", "mixes"), [(2, 0.24, True), (2, 0.26, False), (0, 0, 0)]
)
def test_host_random_decides_whether_a_step_mixes(epoch, host_random, mixes):
    players = Players(*ALONE, "discriminator.cut.warm_up_epochs=4")  # probability .25 at epoch 2
    found = players.discriminator_terms(at_epoch(players.at_random(host_random), epoch))
    assert ("consistency" in found.terms) == bool(mixes)
    assert ("cut_share" in found.statistics) == bool(mixes)


def test_without_a_cut_no_random_number_is_drawn():
    players = Players(*ALONE, "discriminator.cut.kind=none")
    before = players.inputs.context.random.generator.get_state()
    assert "consistency" not in players.discriminator_terms().terms
    assert torch.equal(players.inputs.context.random.generator.get_state(), before)


# The cut


def with_maps(players, weight, occlusion, driving_mask=None):
    """Replace the background's weight and the occlusion map of the dense motion, B x 1 x 16 x 16,
    and the driving mask.
    """
    motion = players.motion
    weights = torch.cat((weight, *[(1 - weight) / 4] * 4), dim=1)
    maps = motion.motion._replace(motion_weights=weights, occlusion_map=occlusion)
    players.inputs = players.inputs.with_output("motion", motion._replace(motion=maps))
    if driving_mask is not None:
        masks = players.inputs.outputs.masks
        players.inputs = players.inputs.with_output(
            "masks", masks._replace(driving_mask=driving_mask)
        )


def halves(batch=3):
    """Maps in which the left half is foreground, and the occlusion map falls from 1 in the first
    row to 0 in the last.
    """
    weight = torch.zeros(batch, 1, 16, 16)
    weight[..., 8:] = 1
    occlusion = torch.linspace(1, 0, 16).view(1, 1, 16, 1).expand(batch, 1, 16, 16)
    return weight, occlusion


def test_cut_of_known_maps():
    players = Players(*ALONE)
    with_maps(players, *halves())
    cut = players.adversary.cut(players.inputs, torch.tensor([0.25, 0.5, 0.0]))
    # A quarter of the 128 foreground pixels is in the last 4 of the 16 rows, and so in the last 8
    # of the 32 rows of the image.
    expected = torch.ones(3, 1, 32, 32)
    expected[0, :, 24:, :16] = 0
    expected[1, :, 16:, :16] = 0
    assert torch.equal(cut.cut_mask, expected)
    assert cut.share == 0.25
    assert torch.equal(
        cut.mixed, torch.where(expected > 0, players.inputs.driving, players.motion.prediction)
    )
    assert torch.equal(cut.background, halves()[0])
    assert torch.equal(cut.occlusion[..., 8:], torch.ones(3, 1, 16, 8))
    assert torch.equal(cut.occlusion[..., :8], halves()[1][..., :8])
    assert not cut.mixed.requires_grad


def test_the_threshold_decides_what_is_background():
    weight, occlusion = halves()
    for threshold, share_of_frame in ((0.3, 0), (0.5, 0.5)):
        players = Players(*ALONE, f"discriminator.cut.background_threshold={threshold}")
        with_maps(players, weight.clamp(min=0.4), occlusion)
        cut = players.adversary.cut(players.inputs, torch.ones(3))
        assert (1 - cut.cut_mask).mean() == share_of_frame


def test_foreground_of_the_mask_generator():
    """1 - m(D), at the size of the dense motion, takes the place of M_bg."""
    players = Players("discriminator.cut.foreground=mask_generator")
    weight, occlusion = halves()
    upper = torch.zeros(3, 1, 16, 16)
    upper[:, :, :8] = 1
    with_maps(players, weight, occlusion, driving_mask=upper)
    cut = players.adversary.cut(players.inputs, torch.ones(3))
    expected = torch.ones(3, 1, 32, 32)
    expected[:, :, :16] = 0
    assert torch.equal(cut.cut_mask, expected)
    assert torch.equal(cut.background, 1 - upper)


@pytest.mark.parametrize(
    ("override", "rows", "columns"),
    [
        ("order=least_occluded", slice(0, 16), slice(0, 16)),
        ("foreground=frame", slice(24, 32), slice(0, 32)),  # a quarter of all rows
    ],
)
def test_controls_cut_as_many_other_pixels(override, rows, columns):
    """Half of the foreground, or a quarter of the frame: as many pixels, at another place."""
    players = Players(*ALONE, f"discriminator.cut.{override}")
    with_maps(players, *halves())
    fraction = 0.5 if "order" in override else 0.25
    cut = players.adversary.cut(players.inputs, torch.full((3,), fraction))
    expected = torch.ones(3, 1, 32, 32)
    expected[..., rows, columns] = 0
    assert torch.equal(cut.cut_mask, expected)


def test_random_order_cuts_any_pixels_of_the_foreground():
    players = Players(*ALONE, "discriminator.cut.order=random")
    with_maps(players, *halves())
    fraction = torch.tensor([0.25, 0.5, 0.5])
    first, second = (1 - players.adversary.cut(players.inputs, fraction).cut_mask for _ in range(2))
    assert first[..., 16:].sum() == 0
    assert first.sum(dim=(1, 2, 3)).tolist() == [128, 256, 256]
    assert not torch.equal(first[1], first[2])
    assert not torch.equal(first, second)
    assert (
        0.3 < first[1:, :, :16].sum() / first[1:].sum() < 0.7
    )  # visible ones as often as occluded


def test_vanilla_cutmix_takes_a_rectangle_anywhere():
    players = Players(*ALONE, "discriminator.cut.kind=rectangle", batch=8)
    with_maps(players, *halves(8))
    cut = players.adversary.cut(players.inputs, torch.full((8,), 0.25))
    areas = (1 - cut.cut_mask).mean(dim=(1, 2, 3))
    boxes = torch.minimum(areas, 1 - areas)  # inside and outside are exchanged in some samples
    assert (boxes > 0).all()
    assert (boxes <= 0.25).all()
    assert (1 - cut.cut_mask)[..., 16:].any()  # it cuts the background, too
    assert not torch.equal(cut.cut_mask[0], cut.cut_mask[1])
    inside = (1 - cut.cut_mask)[..., :16].mean()  # over the left half of the image, the foreground
    assert_close(cut.share, inside)


# Bad steps, precision, pictures


def test_a_bad_step_of_the_discriminator_leaves_both_players_as_they_were():
    players = Players(*ALONE)
    optimizer = Optimizer(players.model, players.adversary, players.config, CPU)

    def step(factor):
        inputs = players.inputs
        with optimizer.guarded_buffers():
            inputs = inputs.with_output("motion", players.model.motion(inputs))
            outputs = players.adversary.discriminate(inputs)
            loss = total(players.adversary.generator_terms(outputs))
            own = factor * total(players.adversary.discriminator_terms(outputs).terms)
            optimizer.backward({"model": loss, "discriminator": own})
            return optimizer.step(loss + own)

    def snapshot():
        states = [players.model.state_dict(), players.adversary.state_dict()]
        tensors = {
            f"{i}.{name}": tensor.clone()
            for i, state in enumerate(states)
            for name, tensor in state.items()
            if tensor.is_floating_point()
        }
        for i, state in optimizer.algorithm.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": tensor.clone() for name, tensor in state.items()}
        return tensors

    norms = step(1)
    assert norms["model"] > 0
    assert norms["discriminator"] > 0
    before = snapshot()
    step(math.nan)
    after = snapshot()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert optimizer.bad_steps.item() == 1
    step(1)
    assert any(not torch.equal(snapshot()[name], tensor) for name, tensor in before.items())


def test_each_player_is_clipped_by_its_own_norm():
    players = Players(*ALONE, "train.clip_norm=0.01")
    optimizer = Optimizer(players.model, players.adversary, players.config, CPU)
    clipped = {}
    optimizer.algorithm.register_step_pre_hook(
        lambda *_: clipped.update(
            (name, torch.nn.utils.get_total_norm([p.grad for p in own if p.grad is not None]))
            for name, own in optimizer.players.items()
        )
    )
    outputs = players.adversary.discriminate(players.inputs)
    loss = total(players.adversary.generator_terms(outputs))
    own = total(players.adversary.discriminator_terms(outputs).terms)
    optimizer.backward({"model": loss, "discriminator": own})
    norms = optimizer.step(loss + own)
    assert min(norms.values()) > 0.01
    assert {name: norm.item() for name, norm in clipped.items()} == pytest.approx(
        {"model": 0.01, "discriminator": 0.01}, rel=1e-3
    )


def test_each_player_is_clipped_by_its_own_median():
    players = Players(*ALONE, "train.clip_ratio=4", "train.clip_window=4")
    optimizer = Optimizer(players.model, players.adversary, players.config, CPU)
    for parameter in players.adversary.parameters():
        parameter.requires_grad_()
    seen = {}
    optimizer.algorithm.register_step_pre_hook(
        lambda *_: seen.update(
            (name, torch.nn.utils.get_total_norm([p.grad for p in own]).item())
            for name, own in optimizer.players.items()
        )
    )

    def step(**factors):
        """Take a step with gradients of norm 2 for the model and 3 for the discriminator, times a
        factor for each.
        """
        for (name, own), norm in zip(optimizer.players.items(), (2.0, 3.0), strict=True):
            size = sum(p.numel() for p in own) ** 0.5
            for p in own:
                p.grad = torch.full_like(p, factors.get(name, 1.0) * norm / size)
        optimizer.step(torch.tensor(1.0))
        return seen

    for _ in range(3):
        assert step() == pytest.approx({"model": 2, "discriminator": 3}, rel=1e-4)
    found = step(discriminator=1000.0)
    assert found == pytest.approx({"model": 2, "discriminator": 12}, rel=1e-4)
    assert step(model=3.9) == pytest.approx({"model": 7.8, "discriminator": 3}, rel=1e-4)
    found = step(model=1000.0, discriminator=1000.0)
    assert found == pytest.approx({"model": 8, "discriminator": 12}, rel=1e-4)
    assert optimizer.clipped_steps.item() == 2  # number of steps in which a player was clipped


def test_bf16_terms_stay_near_float32():
    players = Players(*ALONE)
    found = []
    for enabled in (False, True):
        players.adversary.eval()
        players.inputs.context.random.generator.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            terms = players.generator_terms()
            terms |= players.discriminator_terms().terms
        found.append(total(terms))
    assert found[1].dtype == torch.float32
    assert_close(found[1], found[0], rtol=0.05, atol=0)


@pytest.mark.parametrize("kind", ["patch", "unet"])
@torch.no_grad()
def test_pictures(kind):
    cut = "none" if kind == "patch" else "priority"
    players = Players(*ALONE, f"discriminator.kind={kind}", f"discriminator.cut.kind={cut}")
    pictures = players.adversary.eval().pictures(players.inputs, 3)
    shown = ["driving", "prediction", "D(real)", "D(generated)"]
    if kind == "unet":
        shown += ["D(mixed)", "occlusion map", "background", "O_fg", "cut mask", "mixed"]
    assert list(pictures) == shown
    for picture in pictures.values():
        assert picture.shape == players.inputs.driving.shape
        assert 0 <= picture.min() <= picture.max() <= 1


@torch.no_grad()
def test_pictures_cut_more_from_row_to_row():
    players = Players(*ALONE, batch=6)
    with_maps(players, *halves(6))
    mask = players.adversary.eval().pictures(players.inputs, 3)["cut mask"]  # three are shown
    cut = (1 - mask).mean(dim=(1, 2, 3)).tolist()
    assert cut[:3] == pytest.approx([0.5 * share for share in (0.25, 0.5, 0.75)])


def test_weights_follow_from_the_seed_and_leave_the_model_as_it_was():
    first, again, other = (
        build_adversary(tiny_config(f"seed={seed}")).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    with_one, without = (
        Model(tiny_config(*overrides)).state_dict() for overrides in ([], ["discriminator=null"])
    )
    assert all(torch.equal(with_one[name], without[name]) for name in without)
    assert build_adversary(tiny_config("discriminator=null")) is None
