"""Parity of X2Face with numbers of the published network (64 x 64, eval mode)."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from checkpoints.published_x2face import convert, published_name
from modules.x2face import X2Face
from tests.conftest import SHARED, Golden

NUM_LEVELS = 6


class GoldenX2Face(Golden):
    """The same of X2Face; its weights are those of one part, `model`."""

    def __init__(self, path):
        self.arrays = np.load(path)
        meta = json.loads(bytes(self.arrays["meta"]))
        self.params, self.deviation = meta["config"], meta["float64_deviation"]

    def check(self, found, name):
        """As near to the stored output as two ways of computing it in float32 may be."""
        assert_close(found, self[name], atol=4 * self.deviation[name], rtol=0)


@pytest.fixture(scope="module")
def golden_x2face():
    path = SHARED / "golden" / "x2face_tiny.npz"
    if not path.is_file():
        pytest.skip("no golden numbers here")
    return GoldenX2Face(path)


@pytest.fixture(scope="module")
def network(golden_x2face):
    params = golden_x2face.params
    assert params["num_down_blocks"] == NUM_LEVELS
    network = X2Face(
        width=params["width"],
        max_width=8 * params["width"],
        num_levels=NUM_LEVELS,
        embedding_code_size=params["embedding_code"],
        driving_code_size=params["driving_code"],
    )
    published = convert({"state_dict": golden_x2face.weights("model")})
    assert published.unused == []
    network.embedding.load_state_dict(published.networks["embedding"])
    network.driving.load_state_dict(published.networks["driving"])
    return network.eval()


def sources(golden, count):
    return torch.stack([golden[f"source_{i}"] for i in range(count)], dim=1)


def l1(output, driving):
    return (output.prediction - driving).abs().mean()


@torch.no_grad()
def test_one_source(golden_x2face, network):
    check, driving = golden_x2face.check, golden_x2face["driving"]
    raw = network.embedding.unet(golden_x2face["source_0"])
    check(raw, "embedding_raw")
    check(raw[:, 2:].exp() + 0.1, "embedding_confidence")
    output = network(sources(golden_x2face, 1), driving)
    check(output.face.image, "embedded_face")
    check(output.driving_field, "driving_flow")
    check(output.prediction, "prediction")
    check(l1(output, driving), "loss_pixel")


@torch.no_grad()
def test_driving_network(golden_x2face, network):
    maps = network.driving.unet.encode(golden_x2face["driving"])
    golden_x2face.check(maps[-1].relu().flatten(1), "driving_code")
    golden_x2face.check(network.driving.unet.decode(maps).tanh(), "driving_raw")


@torch.no_grad()
def test_three_sources(golden_x2face, network):
    check, driving = golden_x2face.check, golden_x2face["driving"]
    output = network(sources(golden_x2face, 3), driving)
    check(output.face.image, "embedded_face_3_sources")
    check(output.prediction, "prediction_3_sources")
    check(l1(output, driving), "loss_pixel_3_sources")


def test_gradients(golden_x2face, network):
    driving = golden_x2face["driving"]
    network.zero_grad()
    l1(network(sources(golden_x2face, 1), driving), driving).backward()
    heads = [name for name in golden_x2face.arrays.files if name.startswith("grad_norm/")]
    found = {
        "grad_norm/model/" + published_name(part, name, NUM_LEVELS): parameter.grad.norm()
        for part, own in network.named_children()
        for name, parameter in own.named_parameters()
    }
    assert found.keys() == set(heads)
    for name, norm in found.items():
        assert_close(norm, golden_x2face[name], rtol=1e-4, atol=0)
