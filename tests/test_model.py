"""The model: its networks, its seeded weights, the examples that tests build on."""

import torch

from config_file import load_config
from model import Model
from tests.factories import tiny_config, tiny_overrides


def test_networks_are_named_as_in_checkpoints():
    model = Model(tiny_config())
    assert list(model.networks) == ["keypoint_detector", "dense_motion", "generator"]
    assert list(model.state()) == list(model.networks)


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


def test_tiny_overrides_turn_the_demo_into_the_tiny_config():
    exclude = {"run"}
    demo = load_config("demo.yaml", tiny_overrides())
    assert demo.model_dump(exclude=exclude) == tiny_config().model_dump(exclude=exclude)
