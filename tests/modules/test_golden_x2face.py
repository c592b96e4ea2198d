"""Parity of X2Face with numbers of the published network (64 x 64, eval mode)."""

import pytest
import torch
from torch.testing import assert_close

from branches.motion.x2face import X2FaceBranch
from checkpoints.published.x2face import read
from configs.motion.x2face import X2FaceConfig, X2FaceDrivingConfig, X2FaceEmbeddingConfig
from losses import pixel_loss
from tests.helpers.factories import noise_inputs, tiny_config
from tests.helpers.published_files import x2face_name

NUM_LEVELS = 6


@pytest.fixture(scope="module")
def branch(golden_x2face):
    params = golden_x2face.params
    assert params["num_down_blocks"] == NUM_LEVELS
    width = params["width"]
    sizes = {"width": width, "max_width": 8 * width, "num_levels": NUM_LEVELS}
    branch = X2FaceBranch(
        X2FaceConfig(
            kind="x2face",
            embedding=X2FaceEmbeddingConfig(**sizes, code=params["embedding_code"]),
            driving=X2FaceDrivingConfig(**sizes, code=params["driving_code"]),
        )
    )
    published = read({"state_dict": golden_x2face.weights("model")})
    assert published.tensors.unused == []
    for name, own in branch.named_children():
        own.load_state_dict(published.tensors.networks[name])
    return branch.eval()


@pytest.fixture(scope="module")
def inputs(golden_x2face):
    """Inputs of a step, of which the branch takes source and driving frame."""
    return noise_inputs(tiny_config())._replace(
        source=golden_x2face["source_0"], driving=golden_x2face["driving"]
    )


def loss(branch, inputs, output):
    return branch.loss_terms(inputs, output)["pixel"].value


@torch.no_grad()
def test_one_source(golden_x2face, branch, inputs):
    close = golden_x2face.close
    raw = branch.embedding.unet(inputs.source)
    close(raw, "embedding_raw")
    close(raw[:, 2:].exp() + 0.1, "embedding_confidence")
    close(branch.embedding(inputs.source.unsqueeze(1)).image, "embedded_face")
    close(branch.detect(inputs.driving), "driving_flow")
    output = branch(inputs)
    close(output.prediction, "prediction")
    close(loss(branch, inputs, output), "loss_pixel")


@torch.no_grad()
def test_driving_network(golden_x2face, branch, inputs):
    maps = branch.driving.unet.encode(inputs.driving)
    golden_x2face.close(maps[-1].relu().flatten(1), "driving_code")
    golden_x2face.close(branch.driving.unet.decode(maps).tanh(), "driving_raw")


@torch.no_grad()
def test_three_sources(golden_x2face, branch, inputs):
    """As in animation: encoded once for each person, then moved."""
    close, driving = golden_x2face.close, inputs.driving
    sources = torch.stack([golden_x2face[f"source_{i}"] for i in range(3)], dim=1)
    encoded = [branch.encode(pictures) for pictures in sources]
    close(torch.cat([source.features.image for source in encoded]), "embedded_face_3_sources")
    poses = branch.detect(driving).split(1)
    predictions = [branch.predict(*pair) for pair in zip(encoded, poses, strict=True)]
    close(torch.cat(predictions), "prediction_3_sources")
    close(pixel_loss(torch.cat(predictions), driving), "loss_pixel_3_sources")


def test_gradients(golden_x2face, branch, inputs):
    branch.zero_grad()
    loss(branch, inputs, branch(inputs)).backward()
    heads = [name for name in golden_x2face.arrays.files if name.startswith("grad_norm/")]
    found = {
        "grad_norm/model/" + x2face_name(part, name, NUM_LEVELS): parameter.grad.norm()
        for part, own in branch.named_children()
        for name, parameter in own.named_parameters()
    }
    assert found.keys() == set(heads)
    for name, norm in found.items():
        assert_close(norm, golden_x2face[name], rtol=1e-4, atol=0)
