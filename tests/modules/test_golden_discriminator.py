"""Parity of the patch discriminator and its losses with the published ones (64 x 64)."""

import pytest
import torch
from torch.testing import assert_close

from branches.outputs import MotionMaps, MotionOutput, StepOutputs
from configs.schema import DiscriminatorConfig
from modules.discriminator import PatchDiscriminator
from modules.keypoint_detector import Keypoints
from tests.helpers.factories import noise_inputs, tiny_config
from training.adversary import Adversary

TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


def close(actual, expected):
    assert_close(actual, expected, **TOLERANCE)


@pytest.fixture(scope="module")
def adversary(golden):
    """The adversary with the published weights; it gets images and driving keypoint heatmaps."""
    params = golden.params["discriminator_params"]
    num_keypoints = golden.params["common_params"]["num_kp"]
    config = DiscriminatorConfig(
        kind="patch",
        channels=[
            min(params["max_features"], params["block_expansion"] * 2 ** (i + 1))
            for i in range(params["num_blocks"])
        ],
        spectral_norm=False,
        keypoints=params["use_kp"],
        loss="least_squares",
    )
    motion = tiny_config(f"motion.keypoint_detector.num_keypoints={num_keypoints}").motion
    assert motion is not None
    assert motion.heatmap_style.variance == 0.01  # as published
    adversary = Adversary(config, motion)
    adversary.discriminator.load_state_dict(golden.weights("discriminator", "discs.1."))
    return adversary


@pytest.fixture(scope="module")
def inputs(golden):
    """Inputs of a step with the published numbers that the discriminator uses."""
    motion = MotionOutput(
        Keypoints(golden["kp_source"], golden["jac_source"]),
        Keypoints(golden["kp_driving"], golden["jac_driving"]),
        MotionMaps(torch.empty(0), golden["occlusion"], golden["mask"]),
        golden["prediction"],
    )
    return noise_inputs(tiny_config())._replace(
        source=golden["source"], driving=golden["driving"], outputs=StepOutputs(motion)
    )


def test_generator_losses_logits_and_features(golden, adversary, inputs):
    seen = []
    hook = adversary.discriminator.register_forward_hook(lambda *call: seen.append(call[-1]))
    terms = adversary.generator_terms(adversary.discriminate(inputs))
    hook.remove()
    assert terms.keys() == {"encoder", "encoder_features"}
    # The stored losses carry their published weights of 1 and 10, which are the config's defaults.
    close(terms["encoder"].weighted, golden["loss_generator_gan"])
    close(terms["encoder_features"].weighted, golden["loss_feature_matching"])
    real, generated = seen
    close(generated.logits, golden["disc_generated_1"])
    close(real.logits, golden["disc_real_1"])
    assert len(generated.encoder_features) == 3
    for i, features in enumerate(generated.encoder_features):  # stored are the generated image's
        close(features.abs().mean(), golden[f"disc_feature_1_{i}_mean_abs"])


def test_discriminator_loss(golden, adversary, inputs):
    found = adversary.discriminator_terms(adversary.discriminate(inputs))
    assert found.terms.keys() == {"encoder"}
    close(found.terms["encoder"].weighted, golden["loss_discriminator_gan"])
    real, generated = golden["disc_real_1"].mean(), golden["disc_generated_1"].mean()
    close(found.statistics["real_logits"], real)
    close(found.statistics["generated_logits"], generated)
    close(found.statistics["gap"], real - generated)


def test_published_tensor_names_with_spectral_norm(golden):
    """The files vox, bair, mgif and nemo have these names, with three tensors for each weight."""
    published = golden.weights("discriminator", "discs.1.")
    shapes = {name: tensor.shape for name, tensor in published.items() if ".norm." in name}
    for name, tensor in published.items():
        if name.endswith("conv.weight"):
            rows, columns, *kernel = tensor.shape
            columns = 3 if name.startswith("down_blocks.0") else columns
            shapes[f"{name}_orig"] = torch.Size([rows, columns, *kernel])
            shapes[f"{name}_u"] = torch.Size([rows])
            shapes[f"{name}_v"] = torch.Size([columns * kernel[0] * kernel[1]])
        elif name.endswith("conv.bias"):
            shapes[name] = tensor.shape
    network = PatchDiscriminator(3, [16, 32, 32], True)
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == shapes
