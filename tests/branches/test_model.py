"""The model: names of its networks, seeded weights, and the tiny config of the tests."""

import pytest
import torch

from branches.model import Model
from configs.loading import load_config
from tests.helpers.factories import tiny_config, tiny_overrides


def test_networks_are_named_as_in_checkpoints():
    model = Model(tiny_config())
    assert list(model.networks) == [
        "keypoint_detector", "dense_motion", "generator",
        "mask_generator", "refinement", "low_resolution", "high_resolution",
        "bg_base", "bg_refine",
    ]  # fmt: skip
    assert list(model.state()) == list(model.networks)


@pytest.mark.parametrize(
    ("off", "branches"),
    [
        (["masks=null", "background=null"], ["motion"]),
        (["background=null"], ["motion", "masks"]),
        (["motion=null", "discriminator=null"], ["masks", "background"]),
        (["motion=null", "discriminator=null", "background=null"], ["masks"]),
    ],
)
def test_a_branch_without_its_section_is_not_built(off, branches):
    assert list(Model(tiny_config(*off)).branches) == branches


def test_initial_weights_follow_from_the_seed_alone():
    def weights(seed):
        return torch.cat([p.flatten() for p in Model(tiny_config(f"seed={seed}")).parameters()])

    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_switching_a_branch_off_keeps_the_initial_weights_of_those_before_it():
    """So the motion branch can be compared between configs."""
    whole, alone = Model(tiny_config()), Model(tiny_config("masks=null", "background=null"))
    for name, tensor in alone.state_dict().items():
        assert torch.equal(whole.state_dict()[name], tensor)


def test_tiny_overrides_turn_the_demo_into_the_tiny_config():
    exclude = {"run"}
    demo = load_config("demo.yaml", tiny_overrides())
    assert demo.model_dump(exclude=exclude) == tiny_config().model_dump(exclude=exclude)
