"""Published files of X2Face: names one to one, read from the format of their time."""

import json

import numpy as np
import pytest
import torch

from checkpoints.load_report import flatten
from checkpoints.published_x2face import convert, published_name
from common.tensor_files import CheckpointError, read_tensors
from modules.x2face import X2Face
from tests.conftest import SHARED
from tests.helpers.published_x2face import tiny_x2face, write_x2face, x2face_content

PARTS = {"embedding", "driving"}


def published_state(network, num_levels):
    """State dict of a network of ours by published names, with counters."""
    return {
        published_name(part, name, num_levels): tensor
        for part, own in network.named_children()
        for name, tensor in own.state_dict().items()
    }


@pytest.mark.parametrize("num_levels", range(1, 9))
def test_names_are_one_to_one(num_levels):
    with torch.device("meta"):
        network = X2Face(2, 4, num_levels, embedding_code_size=2, driving_code_size=2)
    numbers = {name: torch.tensor(i) for i, name in enumerate(network.state_dict())}
    state = {
        published_name(*name.split(".", 1), num_levels): number for name, number in numbers.items()
    }
    assert len(state) == len(numbers)
    found = convert({"state_dict": state})
    assert found is not None
    assert found.unused == []
    assert flatten(found.networks) == numbers


def test_names_by_hand():
    names = {
        "unet.down_blocks.0.conv.weight": "down.0.weight",
        "unet.up_blocks.2.conv.weight": "up.2.weight",
        "unet.down_blocks.1.conv.weight": "submodule.down.1.weight",
        "unet.down_blocks.1.norm.running_var": "submodule.down.2.running_var",
        "unet.up_blocks.1.norm.num_batches_tracked": "submodule.up.3.num_batches_tracked",
        "unet.down_blocks.2.conv.weight": "submodule.submodule.down.1.weight",
        "unet.up_blocks.0.norm.bias": "submodule.submodule.up.3.bias",
    }
    for name, expected in names.items():
        assert published_name("driving", name, 3) == f"pix2pixSampler.netG.model.{expected}"
    assert published_name("embedding", "unet.up_blocks.0.conv.weight", 1) == (
        "pix2pixUnwrapped.netG.model.up.2.weight"
    )


def test_names_and_shapes_are_the_published_ones():
    path = SHARED / "golden" / "x2face_tiny.npz"
    if not path.is_file():
        pytest.skip("no golden numbers here")
    meta = json.loads(bytes(np.load(path)["meta"]))
    shapes = meta["published_shapes"]["state_dict"]
    with torch.device("meta"):
        network = X2Face(64, 512, 8, embedding_code_size=512, driving_code_size=128)
    own = {
        name: list(tensor.shape)
        for name, tensor in published_state(network, 8).items()
        if not name.endswith("num_batches_tracked")
    }
    assert own == shapes


@pytest.mark.parametrize("num_levels", [1, 2, 4])
def test_networks_come_back_to_the_last_bit(tmp_path, num_levels):
    network = tiny_x2face(num_levels).eval()
    path = write_x2face(tmp_path / "x2face_model.pth", network)
    assert not path.read_bytes().startswith(b"PK")
    found = convert(read_tensors(path))
    assert found is not None
    assert found.unused == []
    assert found.networks.keys() == PARTS
    other = X2Face(4, 8, num_levels, embedding_code_size=6, driving_code_size=5).eval()
    for part, own in other.named_children():
        own.load_state_dict(found.networks[part])
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    side = 2**num_levels
    sources, driving = torch.rand(1, 2, 3, side, side), torch.rand(1, 3, side, side)
    assert torch.equal(other(sources, driving).prediction, network(sources, driving).prediction)


@pytest.mark.parametrize("as_zip", [False, True])
def test_files_that_were_saved_anew(tmp_path, as_zip):
    """By a PyTorch of today, with the counters of BatchNorm."""
    network = tiny_x2face()
    state = published_state(network, 3)
    counter = "pix2pixSampler.netG.model.submodule.down.2.num_batches_tracked"
    state[counter] = torch.tensor(7)
    path = tmp_path / "a.pth"
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=as_zip)
    found = convert(read_tensors(path))
    assert found.networks["driving"]["unet.down_blocks.1.norm.num_batches_tracked"] == 7
    assert found.networks["embedding"]["unet.down_blocks.1.norm.num_batches_tracked"] == 0


def test_a_file_without_counters_gets_zeros():
    content = x2face_content(tiny_x2face())
    assert not any(name.endswith("num_batches_tracked") for name in content["state_dict"])
    found = convert(content)
    counters = {
        name: tensor
        for state in found.networks.values()
        for name, tensor in state.items()
        if name.endswith("num_batches_tracked")
    }
    assert counters.keys() == {
        f"unet.{block}.norm.num_batches_tracked"
        for block in ("down_blocks.1", "up_blocks.0", "up_blocks.1")
    }
    assert {(tensor.dtype, tensor.item()) for tensor in counters.values()} == {(torch.int64, 0)}


def test_what_has_no_place_is_named():
    content = x2face_content(tiny_x2face())
    others = [
        "pix2pixSampler.netG.model.down.1.weight",  # a level beneath has this position
        "pix2pixSampler.netG.model.submodule.down.0.weight",
        "pix2pixSampler.netG.model.submodule.up.2.weight.more",
        "pix2pixOther.netG.model.down.0.weight",
        "posefrombottle.weight",
    ]
    content["state_dict"] |= dict.fromkeys(others, torch.ones(1))
    found = convert(content)
    assert found.unused == others
    expected = convert(x2face_content(tiny_x2face())).networks
    assert {p: s.keys() for p, s in found.networks.items()} == {
        p: s.keys() for p, s in expected.items()
    }


def test_other_files_are_not_taken_for_published_ones():
    one_half = {"pix2pixSampler.netG.model.down.0.weight": torch.ones(1)}
    content = x2face_content(tiny_x2face())
    for other in (
        [],
        {},
        {"state_dict": 3},
        {"state_dict": {}},
        {"state_dict": one_half},
        {"state_dict": {3: torch.ones(1)}},
        {"state_dict": content["state_dict"] | {"epoch": 3}},
        content["state_dict"],
        torch.ones(1),
    ):
        assert convert(other) is None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file(tmp_path, share):
    path = write_x2face(tmp_path / "x2face_model.pth", tiny_x2face())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        read_tensors(path)
