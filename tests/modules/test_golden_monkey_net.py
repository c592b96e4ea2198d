"""Parity of Monkey-Net with numbers of the published network (64 x 64, eval mode)."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from checkpoints.published.layout import own_name
from checkpoints.published.monkey_net import PLACES, read
from losses import ADVERSARIAL_LOSSES, layer_matching_loss, pixel_loss
from media.visualization import to_uint8
from modules.dense_motion import DenseMotion
from modules.discriminator import PatchDiscriminator
from modules.heatmaps import heatmap_difference
from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import movement_scale
from modules.monkey_net.dense_motion import MonkeyNetDenseMotion
from modules.monkey_net.generator import MonkeyNetGenerator
from modules.monkey_net.heatmaps import covariance_heatmaps
from modules.monkey_net.keypoint_detector import MonkeyNetKeypointDetector
from modules.monkey_net.keypoint_transfer import clipped_keypoints, transferred_keypoints
from tests.helpers.golden import GoldenMonkeyNet, assert_within_one_grey_level
from tests.helpers.published_files import published_name

PARTS = ("generator", "kp_detector", "discriminator")
GAN = ADVERSARIAL_LOSSES["least_squares"]


class Networks(NamedTuple):
    keypoint_detector: MonkeyNetKeypointDetector
    dense_motion: MonkeyNetDenseMotion
    generator: MonkeyNetGenerator
    discriminator: PatchDiscriminator


def build(params) -> Networks:
    """The networks of published `params`."""
    num_keypoints = params["common_params"]["num_kp"]
    detector, generator = params["kp_detector_params"], params["generator_params"]
    dense, heatmaps = generator["dense_motion_params"], generator["kp_embedding_params"]
    discriminator = params["discriminator_params"]
    return Networks(
        MonkeyNetKeypointDetector(
            **hourglass(detector),
            scale=detector.get("scale_factor", 1),
            num_keypoints=num_keypoints,
            temperature=detector["temperature"],
            min_singular_value=detector.get("clip_variance"),
        ),
        MonkeyNetDenseMotion(
            **hourglass(dense),
            scale=dense.get("scale_factor", 1),
            num_keypoints=num_keypoints,
            heatmap_norm=dense["mask_embedding_params"]["norm_const"],
            num_group_blocks=dense["num_group_blocks"],
            use_difference=dense["mask_embedding_params"].get("use_difference", False),
            occlusion=False,
        ),
        MonkeyNetGenerator(
            **hourglass(generator),
            num_refinement_blocks=generator["num_refinement_blocks"],
            num_keypoints=num_keypoints,
            heatmap_scale=heatmaps.get("scale_factor", 1),
            heatmap_norm=heatmaps["norm_const"],
            interpolation=(
                "bilinear" if generator.get("interpolation_mode") == "trilinear" else "nearest"
            ),
        ),
        PatchDiscriminator(
            3 + num_keypoints,
            [
                min(discriminator["max_features"], discriminator["block_expansion"] * 2 ** (i + 1))
                for i in range(discriminator["num_blocks"])
            ],
            use_spectral_norm=False,
            pool_last=True,
        ),
    )


def hourglass(params) -> dict[str, int]:
    return {
        "width": params["block_expansion"],
        "max_width": params["max_features"],
        "num_blocks": params["num_blocks"],
    }


@pytest.fixture(scope="module")
def golden(golden_monkey_net) -> GoldenMonkeyNet:
    return golden_monkey_net


@pytest.fixture(scope="module")
def networks(golden) -> Networks:
    """With all published tensors, each under our name."""
    found = read({part: golden.weights(part) for part in PARTS})
    assert found is not None
    assert not found.tensors.unused
    networks = build(golden.params)
    for name, network in networks._asdict().items():
        network.load_state_dict(found.tensors.networks[name])
        network.eval()
    return networks


class Step(NamedTuple):
    """What a training step computes, and what the golden file has of its inside."""

    source_kp: Keypoints
    driving_kp: Keypoints
    motion: DenseMotion
    prediction: Tensor
    seen: dict[str, Tensor]


def step(networks: Networks, golden: GoldenMonkeyNet) -> Step:
    detector, dense, generator, _ = networks
    seen: dict[str, Tensor] = {}

    def see_input(name: str):
        return lambda module, inputs: seen.update({name: inputs[0]})

    def see_output(name: str):
        return lambda module, inputs, output: seen.update({name: output})

    hooks = [
        detector.kp.register_forward_hook(see_output("kp_logits_source")),
        dense.group_blocks.register_forward_pre_hook(see_input("dense_motion_input")),
        dense.weights_and_correction.register_forward_hook(see_output("maps")),
        generator.refinement.register_forward_pre_hook(see_input("decoder_features")),
    ]
    driving_kp = detector(golden["driving"])
    source_kp = detector(golden["source"])
    motion = dense(golden["source"], source_kp, driving_kp)
    prediction = generator(golden["source"], motion, source_kp, driving_kp)
    for hook in hooks:
        hook.remove()
    return Step(source_kp, driving_kp, motion, prediction, seen)


@pytest.fixture(scope="module")
def computed(networks, golden) -> Step:
    with torch.no_grad():
        return step(networks, golden)


def test_keypoints_and_covariances(golden, computed):
    for which, keypoints in (("source", computed.source_kp), ("driving", computed.driving_kp)):
        golden.close(keypoints.value, f"kp_{which}")
        golden.close(keypoints.covariance, f"var_{which}")
        assert keypoints.jacobian is None
    golden.close(computed.seen["kp_logits_source"][:1], "kp_logits_source_0")


def test_dense_motion(golden, computed):
    golden.close(computed.seen["dense_motion_input"][:1], "dense_motion_input_0")
    golden.close(computed.motion.motion_weights, "motion_weights")
    golden.close(computed.seen["maps"][:, -2:], "correction")
    golden.close(computed.motion.deformation, "deformation")
    assert computed.motion.occlusion_map is None


def test_prediction(golden, networks, computed):
    golden.close(networks.generator.warp(golden["source"], computed.motion), "deformed")
    golden.close(computed.seen["decoder_features"][:1], "decoder_features_0")
    golden.close(computed.prediction, "prediction")
    assert_within_one_grey_level(to_uint8(computed.prediction), golden["prediction"])


def test_heatmaps_of_the_generator(golden, networks, computed):
    expected = golden["generator_heatmaps_0"]
    found = heatmap_difference(
        *(computed.source_kp, computed.driving_kp),
        *expected.shape[-2:],
        networks.generator.heatmap_style,
    )
    golden.close(found[:1], "generator_heatmaps_0")


class Losses(NamedTuple):
    matching: list[Tensor]  # of the images and of every block, with their weights
    deformed: Tensor
    fool: Tensor
    total: Tensor


def discriminate(networks: Networks, golden, keypoints: Keypoints, image: Tensor):
    norm = golden.params["discriminator_params"]["kp_embedding_params"]["norm_const"]
    height, width = image.shape[-2:]
    heatmaps = covariance_heatmaps(keypoints, height, width, norm)
    return networks.discriminator(torch.cat((image, heatmaps), dim=1))


def detached(keypoints: Keypoints) -> Keypoints:
    assert keypoints.covariance is not None
    return Keypoints(keypoints.value.detach(), None, keypoints.covariance.detach())


def generator_losses(networks: Networks, golden, computed: Step, *, detach: bool = False) -> Losses:
    """detach: no gradient through heatmaps and real features, unlike the published code."""
    keypoints = detached(computed.driving_kp) if detach else computed.driving_kp
    generated = discriminate(networks, golden, keypoints, computed.prediction)
    real = discriminate(networks, golden, keypoints, golden["driving"])
    of_image, *of_features = golden.meta["loss_weights"]["reconstruction"]
    real_features = [x.detach() if detach else x for x in real.encoder_features]
    pairs = zip(generated.encoder_features, real_features, of_features, strict=True)
    matching = [of_image * pixel_loss(computed.prediction, golden["driving"])]
    matching += [layer_matching_loss([a], [b], [weight]).weighted for a, b, weight in pairs]
    at_once = layer_matching_loss(generated.encoder_features, real_features, of_features)
    deformed = pixel_loss(
        networks.generator.warp(golden["source"], computed.motion), golden["driving"]
    )
    deformed = golden.meta["loss_weights"]["reconstruction_deformed"] * deformed
    fool = GAN.fool(generated.logits).mean()
    return Losses(matching, deformed, fool, matching[0] + at_once.weighted + deformed + fool)


def discriminator_loss(networks: Networks, golden, computed: Step) -> Tensor:
    keypoints = detached(computed.driving_kp)
    image = computed.prediction.detach()
    generated = discriminate(networks, golden, keypoints, image)
    real = discriminate(networks, golden, keypoints, golden["driving"])
    return GAN.real(real.logits).mean() + GAN.generated(generated.logits).mean()


@torch.no_grad()
def test_losses(golden, networks, computed):
    losses = generator_losses(networks, golden, computed)
    for i, loss in enumerate(losses.matching):
        golden.close(loss, f"loss_matching_{i}")
    if golden.meta["loss_weights"]["reconstruction_deformed"]:
        golden.close(losses.deformed, "loss_deformed")
    golden.close(losses.fool, "loss_generator_gan")
    golden.close(losses.total, "loss_generator_total")
    golden.close(discriminator_loss(networks, golden, computed), "loss_discriminator_gan")


@torch.no_grad()
def test_discriminator(golden, networks, computed):
    keypoints = computed.driving_kp
    generated = discriminate(networks, golden, keypoints, computed.prediction)
    real = discriminate(networks, golden, keypoints, golden["driving"])
    golden.close(generated.logits, "disc_generated")
    golden.close(real.logits, "disc_real")
    assert generated.pixel_logits is None
    assert not generated.decoder_features
    for i, features in enumerate(generated.encoder_features):
        golden.close(features.abs().mean(), f"disc_feature_{i}_mean_abs")


def norms(golden, head: str, parts) -> dict[tuple[str, str], Tensor]:
    """L2 norms of gradients that are stored under `head`, by our network and name."""
    found = {}
    for part in parts:
        start = f"{head}/{part}/"
        for name in golden.arrays.files:
            place = own_name(PLACES, part, name.removeprefix(start))
            if name.startswith(start) and place is not None:
                found[place] = golden[name]
    return found


def assert_gradients(golden, networks: Networks, loss: Tensor, head: str, parts) -> None:
    """L2 norms of the gradients of `loss`, of every parameter of those parts."""
    for network in networks:
        network.zero_grad()
    loss.backward()
    expected = norms(golden, head, parts)
    found = {
        (network, name): parameter.grad.norm()
        for network in {network for network, _ in expected}
        for name, parameter in getattr(networks, network).named_parameters()
    }
    # Biases in front of a softmax or an InstanceNorm change nothing: of theirs, rounding is left.
    assert_close(found, expected, rtol=1e-3, atol=2e-5)


def test_gradients_of_the_generator(golden, networks):
    losses = generator_losses(networks, golden, step(networks, golden))
    assert_gradients(golden, networks, losses.total, "grad_norm", ("generator", "kp_detector"))


def test_gradients_of_the_detector_with_real_features_and_heatmaps_detached(golden, networks):
    losses = generator_losses(networks, golden, step(networks, golden), detach=True)
    assert_gradients(golden, networks, losses.total, "grad_norm_detached", ("kp_detector",))


def test_gradients_of_the_discriminator(golden, networks):
    loss = discriminator_loss(networks, golden, step(networks, golden))
    assert_gradients(golden, networks, loss, "grad_norm", ("discriminator",))


def frame_of(keypoints: Keypoints, i: int) -> Keypoints:
    assert keypoints.covariance is not None
    return Keypoints(keypoints.value[i : i + 1], None, keypoints.covariance[i : i + 1])


@torch.no_grad()
@pytest.mark.parametrize(
    "mode", ["absolute", "relative", "relative_adapted", "relative_variance", "relative_clipped"]
)
def test_animation(golden, networks, computed, mode):
    """Source 0, driven by frame 1 since frame 0. `clipped` is with the adapted scale."""
    source, first = frame_of(computed.source_kp, 0), frame_of(computed.driving_kp, 0)
    driving = frame_of(computed.driving_kp, 1)
    scale = movement_scale(source, first) if mode.endswith(("adapted", "clipped")) else 1.0
    assert (scale != 1) == mode.endswith(("adapted", "clipped"))
    moved = driving
    if mode != "absolute":
        moved = transferred_keypoints(
            source, driving, first, scale, relative_covariance=mode == "relative_variance"
        )
    if mode == "relative_clipped":
        moved = clipped_keypoints(moved)
    golden.close(moved.value, f"kp_{mode}")
    if mode == "relative_variance":
        golden.close(moved.covariance, "var_relative_variance")
    else:
        assert torch.equal(moved.covariance, driving.covariance)
    _, dense, generator, _ = networks
    image = golden["source"][:1]
    prediction = generator(image, dense(image, source, moved), source, moved)
    golden.close(prediction, f"prediction_{mode}")
    assert_within_one_grey_level(to_uint8(prediction), golden[f"prediction_{mode}"])


def full_size(max_width: int, num_blocks: int, use_difference: bool) -> dict:
    """Params of the networks as they were published; sizes of maps change no tensor."""
    sizes = {"block_expansion": 32, "max_features": max_width, "num_blocks": 5}
    embedding = {"norm_const": 100, "use_difference": use_difference}
    return {
        "common_params": {"num_kp": 10},
        "kp_detector_params": {**sizes, "temperature": 0.1},
        "generator_params": {
            **sizes,
            "num_blocks": num_blocks,
            "num_refinement_blocks": 4,
            "dense_motion_params": {
                **sizes,
                "num_group_blocks": 2,
                "mask_embedding_params": embedding,
            },
            "kp_embedding_params": embedding,
        },
        "discriminator_params": {**sizes, "max_features": 256, "num_blocks": 4},
    }


def test_number_of_parameters_of_the_published_networks():
    with torch.device("meta"):
        networks = build(full_size(1024, 7, False))
    millions = [sum(p.numel() for p in network.parameters()) / 1e6 for network in networks]
    detector, dense_motion, generator, discriminator = millions
    assert round(detector, 1) == 14.1
    assert round(dense_motion + generator, 1) == 80.6
    assert round(discriminator, 1) == 1.7


@pytest.mark.parametrize(
    ("config", "params"),
    [
        ("vox", full_size(1024, 7, False)),
        ("taichi", full_size(1024, 5, False)),
        ("bair", full_size(512, 5, False)),
        ("moving-gif", full_size(1024, 6, True)),
    ],
)
@pytest.mark.parametrize("golden_monkey_net", ["vox"], indirect=True)
def test_names_and_shapes_of_the_published_configs(golden_monkey_net, config, params):
    expected = {
        (part, name): shape
        for part, shapes in golden_monkey_net.published_shapes(config).items()
        for name, shape in shapes.items()
    }
    with torch.device("meta"):
        networks = build(params)
    found = {
        published_name(PLACES, network, name): tensor.shape
        for network, module in networks._asdict().items()
        for name, tensor in module.state_dict().items()
    }
    assert found.keys() == expected.keys()
    for name, shape in expected.items():
        # A kernel has a third axis of size 1.
        assert shape == [*found[name][:2], 1, *found[name][2:]] or shape == [*found[name]]
