"""Parity of TPSMM's networks and losses with numbers of the published ones (64 x 64, eval mode)."""

from typing import NamedTuple

import pytest
import torch
from torch.testing import assert_close

from losses import background_loss, equivariance_value_loss, pixel_loss, warp_loss
from modules.geometry import resize_grid, warp
from modules.keypoint_detector import Keypoints
from modules.keypoint_transfer import (
    expand_keypoints,
    first_keypoints,
    movement_scale,
    relative_keypoints,
)
from modules.thin_plate import ThinPlateTransform, control_grid
from modules.tpsmm.avd import AVDNetwork
from modules.tpsmm.background_predictor import BackgroundPredictor
from modules.tpsmm.dense_motion import (
    ThinPlateMotionNetwork,
    candidate_motions,
    kept_plates,
    weights_of_kept_plates,
)
from modules.tpsmm.inpainting import InpaintingNetwork
from modules.tpsmm.keypoint_detector import GroupedKeypointDetector

# The published part with the weights of each network. Tensors have their published names; only the
# blur kernel, `down.weight`, is derived from the scale.
PARTS = {
    "detector": "kp_detector",
    "background": "bg_predictor",
    "dense_motion": "dense_motion_network",
    "inpainting": "inpainting_network",
    "avd": "avd_network",
}


class Networks(NamedTuple):
    detector: GroupedKeypointDetector
    background: BackgroundPredictor
    dense_motion: ThinPlateMotionNetwork
    inpainting: InpaintingNetwork
    avd: AVDNetwork


def build(params):
    """Networks of the published size in `params`, the model_params of a config of TPSMM."""
    num_plates = params["common_params"]["num_tps"]
    motion, generator = params["dense_motion_params"], params["generator_params"]
    avd = params["avd_network_params"]
    return Networks(
        GroupedKeypointDetector(num_plates),
        BackgroundPredictor(),
        ThinPlateMotionNetwork(
            width=motion["block_expansion"],
            max_width=motion["max_features"],
            num_blocks=motion["num_blocks"],
            scale=motion["scale_factor"],
            num_plates=num_plates,
            heatmap_variance=0.01,
            num_occlusion_maps=generator["num_down_blocks"] + 1,
        ),
        InpaintingNetwork(
            width=generator["block_expansion"],
            max_width=generator["max_features"],
            num_down_blocks=generator["num_down_blocks"],
        ),
        AVDNetwork(5 * num_plates, avd["id_bottle_size"], avd["pose_bottle_size"]),
    )


@pytest.fixture(scope="module")
def tpsmm(golden_tpsmm):
    return golden_tpsmm


@pytest.fixture(scope="module")
def networks(tpsmm):
    networks = build(tpsmm.params)
    for network, part in zip(networks, PARTS.values(), strict=True):
        weights = tpsmm.weights(part)
        weights.pop("down.weight", None)
        network.load_state_dict(weights)
        network.eval()
    return networks


@pytest.fixture(scope="module")
def keypoints(tpsmm):
    return Keypoints(tpsmm["kp_source"], None), Keypoints(tpsmm["kp_driving"], None)


def without_kernel(shapes):
    return {name: tuple(shape) for name, shape in shapes.items() if name != "down.weight"}


@pytest.mark.parametrize("size", ["shapes", "published_shapes"])
def test_every_published_tensor_has_its_place(tpsmm, size):
    params = tpsmm.params
    if size == "published_shapes":  # of the vox config
        params = {
            "common_params": {"num_tps": 10},
            "generator_params": {
                "block_expansion": 64,
                "max_features": 512,
                "num_down_blocks": 3,
            },
            "dense_motion_params": {
                "block_expansion": 64,
                "max_features": 1024,
                "num_blocks": 5,
                "scale_factor": 0.25,
            },
            "avd_network_params": {"id_bottle_size": 128, "pose_bottle_size": 128},
        }
    with torch.device("meta"):  # names and shapes alone
        networks = build(params)
    for network, part in zip(networks, PARTS.values(), strict=True):
        ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        assert ours == without_kernel(tpsmm.meta[size][part])


def test_blur_kernel(tpsmm, networks):
    kernel = networks.dense_motion.down.kernel
    stored = tpsmm.weights("dense_motion_network")["down.weight"]
    assert_close(torch.outer(kernel, kernel).expand(3, 1, -1, -1), stored)


@torch.no_grad()
def test_keypoints(tpsmm, networks):
    for which in ("source", "driving"):
        found = networks.detector(tpsmm[which])
        tpsmm.close(found.value, f"kp_{which}")
        assert found.jacobian is None


@torch.no_grad()
def test_background_motion(tpsmm, networks):
    source, driving = tpsmm["source"], tpsmm["driving"]
    tpsmm.close(networks.background(source, driving), "background_motion")
    tpsmm.close(networks.background(driving, source), "background_motion_reverse")


@torch.no_grad()
def test_dense_motion_and_prediction(tpsmm, networks, keypoints):
    dense_motion, source = networks.dense_motion, tpsmm["source"]
    background = tpsmm["background_motion"]
    seen = []
    encoder = dense_motion.hourglass.encoder
    hook = encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    motion = dense_motion(source, *keypoints, background)
    hook.remove()
    tpsmm.close(seen[0][:1], "dense_motion_input_0")
    tpsmm.close(candidate_motions(*keypoints, background, 16, 16), "transformations")
    tpsmm.close(motion.motion_weights, "contribution_maps")
    tpsmm.close(motion.deformation, "deformation")
    assert len(motion.occlusion_maps) == 4
    for i, occlusion_map in enumerate(motion.occlusion_maps):
        tpsmm.close(occlusion_map, f"occlusion_{i}")
    assert motion.occlusion_map is motion.occlusion_maps[1]
    field = resize_grid(motion.deformation, (64, 64), align_corners=True)
    tpsmm.close(warp(source, field), "deformed")
    tpsmm.close(networks.inpainting(source, motion), "prediction")


@torch.no_grad()
def test_dropout_of_plates_with_the_stored_draws(tpsmm, networks, keypoints):
    dense_motion, source = networks.dense_motion, tpsmm["source"]
    # The draw of the background, the first of each row, counts for nothing.
    kept = kept_plates(tpsmm["dropout_uniform"][:, 1:], tpsmm["dropout_p"].item())
    assert not kept.all()
    logits = []
    hook = dense_motion.maps.register_forward_hook(lambda *call: logits.append(call[-1]))
    motion = dense_motion(source, *keypoints, tpsmm["background_motion"], kept)
    hook.remove()
    weights = weights_of_kept_plates(logits[0], kept)
    tpsmm.close(weights, "contribution_maps_dropout")
    tpsmm.close(motion.motion_weights, "contribution_maps")  # of PriorityCut: nothing is dropped
    tpsmm.close(networks.inpainting(source, motion), "prediction_dropout")


@torch.no_grad()
def test_without_background_motion(tpsmm, networks, keypoints):
    motion = networks.dense_motion(tpsmm["source"], *keypoints)
    tpsmm.close(networks.inpainting(tpsmm["source"], motion), "prediction_no_background")


@torch.no_grad()
@pytest.mark.parametrize(
    ("mode", "name"), [("absolute", "standard"), ("relative", "relative"), ("avd", "avd")]
)
def test_animation(tpsmm, networks, keypoints, mode, name):
    """Source 0 moved by driving frame 1, the first driving frame being 0; encoded once."""
    source, first = (first_keypoints(k) for k in keypoints)
    driving = moved = Keypoints(keypoints[1].value[1:], None)
    if mode == "relative":
        moved = relative_keypoints(source, driving, first, movement_scale(source, first))
    elif mode == "avd":
        moved = networks.avd(expand_keypoints(source, len(driving.value)), driving)
    if mode != "absolute":
        tpsmm.close(moved.value, f"kp_{name}")
    image = tpsmm["source"][:1]
    features = networks.inpainting.encode(image)
    prediction = networks.inpainting.decode(
        features, networks.dense_motion(image, source, moved, None)
    )
    tpsmm.close(prediction, f"prediction_{name}")


@torch.no_grad()
def test_thin_plate_transform_and_equivariance_loss(tpsmm, networks, keypoints):
    theta, weights = tpsmm["tps_theta"], tpsmm["tps_control_params"].flatten(1)
    transform = ThinPlateTransform(theta, weights, control_grid(5, theta), "euclidean")
    frame = transform.frame(tpsmm["driving"])
    tpsmm.close(frame, "tps_frame")
    transformed = networks.detector(frame)
    tpsmm.close(transformed.value, "tps_kp")
    tpsmm.close(transform.points(transformed.value), "tps_kp_warped")
    # The stored losses carry their published weights of 10.
    loss = 10 * equivariance_value_loss(keypoints[1], transformed, transform)
    tpsmm.close(loss, "loss_equivariance_value")


@pytest.fixture(scope="module")
def losses(tpsmm, networks):
    """Those of a training step that are stored, by name, with the graph behind them."""
    source, driving = tpsmm["source"], tpsmm["driving"]
    keypoints = networks.detector(source), networks.detector(driving)
    forward = networks.background(source, driving)
    motion = networks.dense_motion(source, *keypoints, forward)
    features = networks.inpainting.encode(source)
    warped = networks.inpainting.warped_features(features, motion)
    compared = networks.inpainting.driving_features(driving, motion)
    for i, (a, b) in enumerate(zip(warped, reversed(compared), strict=True)):
        tpsmm.close(a.detach().abs().mean(), f"warped_encoder_{i}_mean_abs")
        tpsmm.close(b.abs().mean(), f"driving_encoder_{i}_mean_abs")  # stored the largest first
    return {
        "loss_pixel": pixel_loss(networks.inpainting.decode(features, motion), driving),
        "loss_warp": 10 * warp_loss(warped, compared),
        "loss_background": 10 * background_loss(forward, networks.background(driving, source)),
    }


TRAINED = ("detector", "background", "dense_motion", "inpainting")  # the other waits for them


def gradients(networks, loss):
    """By network and parameter; zeros where none arrives."""
    names, parameters = zip(
        *(
            ((which, name), parameter)
            for which in TRAINED
            for name, parameter in getattr(networks, which).named_parameters()
        ),
        strict=True,
    )
    found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    by_network = {which: {} for which in TRAINED}
    for (which, name), gradient in zip(names, found, strict=True):
        by_network[which][name] = gradient
    return by_network


@pytest.mark.parametrize("name", ["loss_pixel", "loss_warp", "loss_background"])
def test_losses_and_what_is_detached(tpsmm, networks, losses, name):
    tpsmm.close(losses[name].detach(), name)
    for which, found in gradients(networks, losses[name]).items():
        norm = torch.stack([gradient.norm() for gradient in found.values()]).norm()
        stored = tpsmm[f"grad_norm/{name}/{PARTS[which]}"]
        # In float64 they differ from the stored ones by up to 0.3 %; nothing is nothing.
        assert_close(norm, stored, rtol=0.01, atol=0.0)


def test_gradient_of_every_parameter(tpsmm, networks, losses):
    found = gradients(networks, losses["loss_pixel"])
    for which in ("dense_motion", "inpainting"):
        head = f"grad_norm/{PARTS[which]}/"
        stored = {n.removeprefix(head) for n in tpsmm.arrays.files if n.startswith(head)}
        assert found[which].keys() == stored
        for name, gradient in found[which].items():
            # In float64 up to 1 %. Biases before InstanceNorm have rounding alone, below 1e-7.
            assert_close(
                gradient.norm(),
                tpsmm[head + name],
                rtol=0.03,
                atol=1e-7,
                msg=lambda m, name=name: f"{name}: {m}",
            )


def test_every_parameter_receives_a_gradient(networks, losses, keypoints):
    # InstanceNorm subtracts the mean, and with it the bias of the convolution before it.
    before_norm = ("conv.bias", "conv1.bias")
    total = torch.stack(list(losses.values())).sum()
    for which, found in gradients(networks, total).items():
        for name, gradient in found.items():
            assert gradient.any() or name.endswith(before_norm), f"{which}.{name}"
    moved = networks.avd(*keypoints).value.square().sum()
    named = dict(networks.avd.named_parameters())
    for name, gradient in zip(named, torch.autograd.grad(moved, named.values()), strict=True):
        assert gradient.any(), name
