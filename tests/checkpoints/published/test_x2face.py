"""Published files of X2Face: their names, and the format in which torch 0.2 wrote them."""

import pytest
import torch
from torch import nn

from checkpoints.load_report import flatten
from checkpoints.published.x2face import read
from common.tensor_files import CheckpointError, read_tensors
from modules.x2face import DrivingNetwork, EmbeddingNetwork
from tests.helpers.old_torch_files import write_old_file
from tests.helpers.published_files import X2FACE, x2face_name


def build(width, max_width, num_levels, embedding_code, driving_code):
    """Names and shapes of both networks."""
    with torch.device("meta"):
        return nn.ModuleDict(
            {
                "embedding": EmbeddingNetwork(width, max_width, num_levels, embedding_code),
                "driving": DrivingNetwork(width, max_width, num_levels, driving_code),
            }
        )


def content(config=None):
    return X2FACE.content(config or X2FACE.config())


@pytest.mark.parametrize("num_levels", range(1, 9))
def test_names_are_one_to_one(num_levels):
    names = build(2, 4, num_levels, 2, 2).state_dict()
    numbers = {name: torch.tensor([i]) for i, name in enumerate(names)}
    state = {
        x2face_name(*name.split(".", 1), num_levels): number for name, number in numbers.items()
    }
    assert len(state) == len(numbers)
    found = read({"state_dict": state})
    assert found is not None
    assert (found.tensors.unused, found.tensors.added) == ([], [])
    assert flatten(found.tensors.networks) == numbers


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
        assert x2face_name("driving", name, 3) == f"pix2pixSampler.netG.model.{expected}"
    assert x2face_name("embedding", "unet.up_blocks.0.conv.weight", 1) == (
        "pix2pixUnwrapped.netG.model.up.2.weight"
    )


def test_names_and_shapes_are_the_published_ones(golden_x2face):
    own = {
        x2face_name(part, name, 8): list(tensor.shape)
        for part, network in build(64, 512, 8, 512, 128).items()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert own == golden_x2face.meta["published_shapes"]["state_dict"]


def test_file_of_torch_0_2(tmp_path):
    path = write_old_file(tmp_path / "x2face_model.pth", content())
    assert not path.read_bytes().startswith(b"PK")
    found, expected = read(read_tensors(path)), read(content())
    assert found is not None
    assert found.tensors.unused == []
    for name, tensor in flatten(expected.tensors.networks).items():
        assert torch.equal(flatten(found.tensors.networks)[name], tensor), name


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_file_of_torch_0_2(tmp_path, share):
    path = write_old_file(tmp_path / "x2face_model.pth", content())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        read_tensors(path)


def test_files_that_were_saved_anew():
    """A later PyTorch adds counters to BatchNorm; here one layer has its counter."""
    saved = content()
    counter = "pix2pixSampler.netG.model.submodule.down.2.num_batches_tracked"
    saved["state_dict"][counter] = torch.tensor(7)
    found = read(saved).tensors
    own = "unet.down_blocks.1.norm.num_batches_tracked"
    assert (found.networks["driving"][own], found.networks["embedding"][own]) == (7, 0)
    assert f"embedding.{own}" in found.added
    assert f"driving.{own}" not in found.added


def test_a_file_without_counters_gets_zeros():
    """Each norm gets a counter: the outermost level has none, the innermost one, others two."""
    saved = content()
    assert not any(name.endswith("num_batches_tracked") for name in saved["state_dict"])
    found = read(saved).tensors
    tensors = flatten(found.networks)
    counters = {name: t for name, t in tensors.items() if name.endswith("num_batches_tracked")}
    assert {*found.added} == counters.keys()
    assert len(counters) == (2 * 4 - 1) + (2 * 3 - 1)  # the networks have 5 and 4 levels
    assert {(tensor.dtype, tensor.item()) for tensor in counters.values()} == {(torch.int64, 0)}


def test_unused_tensors_are_named():
    saved, expected = content(), read(content()).tensors
    others = [
        "pix2pixSampler.netG.model.down.1.weight",  # only lower levels have this position
        "pix2pixSampler.netG.model.submodule.down.0.weight",
        "pix2pixSampler.netG.model.submodule.up.2.weight.more",
        "pix2pixOther.netG.model.down.0.weight",
        "posefrombottle.weight",
    ]
    saved["state_dict"] |= dict.fromkeys(others, torch.ones(1))
    found = read(saved).tensors
    assert found.unused == [f"state_dict.{name}" for name in others]
    assert flatten(found.networks).keys() == flatten(expected.networks).keys()


def test_other_files_are_not_taken_for_its_own():
    one_half = {"pix2pixSampler.netG.model.down.0.weight": torch.ones(1)}
    state = content()["state_dict"]
    for other in (
        {"state_dict": one_half},
        {"state_dict": {3: torch.ones(1)}},
        {"state_dict": {**state, "epoch": 3}},
        {"model": state},
        state,
    ):
        assert read(other) is None
