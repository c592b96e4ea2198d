"""Parity of the motion branch with numbers of the published network (64 x 64, eval mode)."""

import pytest
import torch
from torch.testing import assert_close

from losses import equivariance_jacobian_loss, equivariance_value_loss
from modules.blocks import AntiAliasDownsample
from modules.dense_motion import DenseMotionNetwork
from modules.generator import Generator
from modules.geometry import resize_grid, warp
from modules.keypoint_detector import KeypointDetector, Keypoints
from modules.keypoint_transfer import movement_scale, relative_keypoints
from modules.thin_plate import ThinPlateTransform, control_grid

TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


def close(actual, expected):
    assert_close(actual, expected, **TOLERANCE)


def load(network, weights):
    """Load all tensors by their published names; we compute the blur kernel from the scale."""
    weights.pop("down.weight", None)
    network.load_state_dict(weights)
    return network.eval()


@pytest.fixture(scope="module")
def networks(golden):
    common, detector = golden.params["common_params"], golden.params["kp_detector_params"]
    generator = golden.params["generator_params"]
    dense_motion = generator["dense_motion_params"]
    return (
        load(
            KeypointDetector(
                width=detector["block_expansion"],
                max_width=detector["max_features"],
                num_blocks=detector["num_blocks"],
                scale=detector["scale_factor"],
                num_keypoints=common["num_kp"],
                jacobian="per_keypoint",
                temperature=detector["temperature"],
            ),
            golden.weights("kp_detector"),
        ),
        load(
            DenseMotionNetwork(
                width=dense_motion["block_expansion"],
                max_width=dense_motion["max_features"],
                num_blocks=dense_motion["num_blocks"],
                scale=dense_motion["scale_factor"],
                num_keypoints=common["num_kp"],
                heatmap_variance=0.01,
                occlusion=True,
            ),
            golden.weights("generator", "dense_motion_network."),
        ),
        load(
            Generator(
                width=generator["block_expansion"],
                max_width=generator["max_features"],
                num_down_blocks=generator["num_down_blocks"],
                num_res_blocks=generator["num_bottleneck_blocks"],
            ),
            {
                name: tensor
                for name, tensor in golden.weights("generator").items()
                if not name.startswith("dense_motion_network.")
            },
        ),
    )


@pytest.fixture(scope="module")
def keypoints(golden):
    return (
        Keypoints(golden["kp_source"], golden["jac_source"]),
        Keypoints(golden["kp_driving"], golden["jac_driving"]),
    )


@torch.no_grad()
def test_keypoints_and_jacobians(golden, networks):
    for which in ("source", "driving"):
        found = networks[0](golden[which])
        close(found.value, golden[f"kp_{which}"])
        close(found.jacobian, golden[f"jac_{which}"])


@torch.no_grad()
def test_dense_motion_and_prediction(golden, networks, keypoints):
    _, dense_motion, generator = networks
    source = golden["source"]
    motion = dense_motion(source, *keypoints)
    close(motion.motion_weights, golden["mask"])
    close(motion.occlusion_map, golden["occlusion"])
    close(warp(source, resize_grid(motion.deformation, (64, 64))), golden["deformed"])
    close(generator(source, motion).prediction, golden["prediction"])


@torch.no_grad()
def test_relative_motion_with_adapted_scale(golden, networks, keypoints):
    _, dense_motion, generator = networks

    def sample(keypoints, i):
        return Keypoints(keypoints.value[i : i + 1], keypoints.jacobian[i : i + 1])

    source = sample(keypoints[0], 0)
    first, driving = sample(keypoints[1], 0), sample(keypoints[1], 1)
    scale = movement_scale(source, first)
    assert scale != 1
    moved = relative_keypoints(source, driving, first, scale)
    close(moved.value, golden["kp_relative"])
    close(moved.jacobian, golden["jac_relative"])
    image = golden["source"][:1]
    close(
        generator(image, dense_motion(image, source, moved)).prediction,
        golden["prediction_relative"],
    )


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.125])
def test_image_pyramid(golden, scale):
    close(AntiAliasDownsample(scale)(golden["driving"]), golden[f"pyramid_driving_{scale}"])


@torch.no_grad()
def test_thin_plate_transform_and_equivariance_losses(golden, networks, keypoints):
    theta = golden["tps_theta"]
    transform = ThinPlateTransform(
        theta, golden["tps_control_params"].flatten(1), control_grid(5, theta)
    )
    frame = transform.frame(golden["driving"])
    close(frame, golden["tps_frame"])
    transformed = networks[0](frame)
    close(transformed.value, golden["tps_kp"])
    close(transform.points(transformed.value), golden["tps_kp_warped"])
    close(transform.jacobian(transformed.value), golden["tps_jacobian"])
    driving = keypoints[1]
    # The stored losses carry their published weight of 10.
    close(
        10 * equivariance_value_loss(driving, transformed, transform),
        golden["loss_equivariance_value"],
    )
    close(
        10 * equivariance_jacobian_loss(driving, transformed, transform),
        golden["loss_equivariance_jacobian"],
    )
