"""Parity of X2Face with numbers of the published network (64 x 64, eval mode)."""

import pytest
import torch
from torch.testing import assert_close

from checkpoints.published.x2face import read
from modules.x2face import X2Face
from tests.helpers.published_files import x2face_name

NUM_LEVELS = 6


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
    published = read({"state_dict": golden_x2face.weights("model")})
    assert published.tensors.unused == []
    for name, own in network.named_children():
        own.load_state_dict(published.tensors.networks[name])
    return network.eval()


def sources(golden, count):
    return torch.stack([golden[f"source_{i}"] for i in range(count)], dim=1)


def l1(output, driving):
    return (output.prediction - driving).abs().mean()


@torch.no_grad()
def test_one_source(golden_x2face, network):
    close, driving = golden_x2face.close, golden_x2face["driving"]
    raw = network.embedding.unet(golden_x2face["source_0"])
    close(raw, "embedding_raw")
    close(raw[:, 2:].exp() + 0.1, "embedding_confidence")
    output = network(sources(golden_x2face, 1), driving)
    close(output.face.image, "embedded_face")
    close(output.driving_field, "driving_flow")
    close(output.prediction, "prediction")
    close(l1(output, driving), "loss_pixel")


@torch.no_grad()
def test_driving_network(golden_x2face, network):
    maps = network.driving.unet.encode(golden_x2face["driving"])
    golden_x2face.close(maps[-1].relu().flatten(1), "driving_code")
    golden_x2face.close(network.driving.unet.decode(maps).tanh(), "driving_raw")


@torch.no_grad()
def test_three_sources(golden_x2face, network):
    close, driving = golden_x2face.close, golden_x2face["driving"]
    output = network(sources(golden_x2face, 3), driving)
    close(output.face.image, "embedded_face_3_sources")
    close(output.prediction, "prediction_3_sources")
    close(l1(output, driving), "loss_pixel_3_sources")


def test_gradients(golden_x2face, network):
    driving = golden_x2face["driving"]
    network.zero_grad()
    l1(network(sources(golden_x2face, 1), driving), driving).backward()
    heads = [name for name in golden_x2face.arrays.files if name.startswith("grad_norm/")]
    found = {
        "grad_norm/model/" + x2face_name(part, name, NUM_LEVELS): parameter.grad.norm()
        for part, own in network.named_children()
        for name, parameter in own.named_parameters()
    }
    assert found.keys() == set(heads)
    for name, norm in found.items():
        assert_close(norm, golden_x2face[name], rtol=1e-4, atol=0)
