"""The motion branch of kind monkey_net with its discriminator: gradients, published or detached."""

import pytest
import torch
from torch.testing import assert_close

from branches.branch import StepContext, StepInputs
from branches.motion.monkey_net import MonkeyNetBranch
from checkpoints.published import monkey_net
from common.batch_random import BatchRandom
from configs.motion.monkey_net import MonkeyNetConfig
from configs.schema import DiscriminatorConfig
from losses import Perceptual
from modules.vgg import VGGFeatures
from tests.modules.test_golden_monkey_net import norms
from training.adversary import Adversary
from training.step import total


@pytest.fixture(scope="module")
def golden(golden_monkey_net):
    return golden_monkey_net


def hourglass(params):
    return {
        "width": params["block_expansion"],
        "max_width": params["max_features"],
        "num_blocks": params["num_blocks"],
        "scale": float(params.get("scale_factor", 1)),
    }


def motion_config(golden):
    """The section of the published networks and losses."""
    params, weights = golden.params, golden.meta["loss_weights"]
    detector, generator = params["kp_detector_params"], params["generator_params"]
    dense = generator["dense_motion_params"]
    return MonkeyNetConfig.model_validate(
        {
            "kind": "monkey_net",
            "heatmap_divisor": generator["kp_embedding_params"]["norm_const"],
            "keypoint_detector": {
                **hourglass(detector),
                "num_keypoints": params["common_params"]["num_kp"],
                "temperature": detector["temperature"],
                "min_variance": detector["clip_variance"],
            },
            "dense_motion": {
                **hourglass(dense),
                "use_difference": dense["mask_embedding_params"].get("use_difference", False),
            },
            "generator": {
                "width": generator["block_expansion"],
                "max_width": generator["max_features"],
                "num_blocks": generator["num_blocks"],
                "num_res_blocks": generator["num_refinement_blocks"],
                "interpolation": "bilinear" if "interpolation_mode" in generator else "nearest",
            },
            "losses": {
                "pixel": float(weights["reconstruction"][0]),
                "deformed": float(weights["reconstruction_deformed"]),
            },
        }
    )


class Players:
    """Branch and adversary with the published weights, in evaluation mode."""

    def __init__(self, golden, *, detach=False):
        config = motion_config(golden)
        params, weights = golden.params["discriminator_params"], golden.meta["loss_weights"]
        widths = [params["block_expansion"] * 2 ** (i + 1) for i in range(params["num_blocks"])]
        self.branch = MonkeyNetBranch(config)
        self.adversary = Adversary(
            DiscriminatorConfig.model_validate(
                {
                    "kind": "monkey_net",
                    "channels": [min(params["max_features"], width) for width in widths],
                    "keypoints": True,
                    "detach": detach,
                    "spectral_norm": False,
                    "losses": {"encoder": float(weights["discriminator_gan"])},
                    "generator_losses": {
                        "encoder": float(weights["generator_gan"]),
                        "encoder_features": weights["reconstruction"][1:],
                    },
                }
            ),
            config,
        )
        parts = ("kp_detector", "generator", "discriminator")
        found = monkey_net.read({part: golden.weights(part) for part in parts})
        assert found is not None
        self.networks = dict(self.branch.named_children()) | self.adversary.networks
        for name, network in self.networks.items():
            network.load_state_dict(found.tensors.networks[name])
        self.branch.eval()
        self.adversary.eval()

    def losses(self, golden):
        """What generator and discriminator minimize."""
        context = StepContext(0.0, BatchRandom(torch.Generator()), 0.0)
        perceptual = Perceptual(VGGFeatures("vgg19", []), [])
        frames = (golden["source"], golden["driving"], golden["driving"])
        inputs = StepInputs(*frames, perceptual, [], context)
        output = self.branch(inputs)
        inputs = inputs.with_output("motion", output)
        outputs = self.adversary.discriminate(inputs)
        terms = self.branch.loss_terms(inputs, output) | self.adversary.generator_terms(outputs)
        return total(terms), total(self.adversary.discriminator_terms(outputs).terms)

    def gradient_norms(self, loss, networks):
        named = {
            (network, name): parameter
            for network in networks
            for name, parameter in self.networks[network].named_parameters()
        }
        found = torch.autograd.grad(loss, list(named.values()))
        return {name: gradient.norm() for name, gradient in zip(named, found, strict=True)}


MODEL = ("keypoint_detector", "dense_motion", "generator")


def test_gradients_as_published(golden):
    """The detector learns through heatmaps and features of the real frame too."""
    players = Players(golden)
    loss, _ = players.losses(golden)
    golden.close(loss, "loss_generator_total")
    expected = norms(golden, "grad_norm", ("generator", "kp_detector"))
    # Biases in front of a softmax or an InstanceNorm change nothing: of theirs, rounding is left.
    assert_close(players.gradient_norms(loss, MODEL), expected, rtol=1e-3, atol=2e-5)


def test_detached_as_by_default(golden):
    players = Players(golden, detach=True)
    loss, _ = players.losses(golden)
    expected = norms(golden, "grad_norm_detached", ("kp_detector",))
    found = players.gradient_norms(loss, ("keypoint_detector",))
    assert_close(found, expected, rtol=1e-3, atol=2e-5)


def test_gradients_of_the_discriminator(golden):
    players = Players(golden)
    _, loss = players.losses(golden)
    golden.close(loss, "loss_discriminator_gan")
    expected = norms(golden, "grad_norm", ("discriminator",))
    found = players.gradient_norms(loss, ("discriminator",))
    assert_close(found, expected, rtol=1e-3, atol=2e-5)
