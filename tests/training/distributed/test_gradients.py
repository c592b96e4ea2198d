"""Gradients of two processes are averaged during the backward pass: hand-worked numbers."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.distributed import processes as distributed
from tests.helpers.processes import finish_together, start_function
from training.distributed.gradients import GradientExchange


def values(parameters):
    return [None if p.grad is None else p.grad.tolist() for p in parameters]


def two_players(compress):
    """Gradients after the backward passes of two players that share a graph, as in a step.

    The model has parameters of both processes, of rank 1 only, of nobody, and a frozen one. Its
    loss reaches the critic's parameter, which has a smaller loss of its own.
    """
    factor = 1.0 + 2 * distributed.rank()  # 1 or 3
    model = [nn.Parameter(torch.tensor([2.0, 4.0])) for _ in range(4)]
    model[3].requires_grad_(False)
    critic = [nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([5.0]))]
    exchanges = [GradientExchange(player, compress) for player in (model, critic)]
    found = []
    for parts in (1, 2):  # the second step accumulates two parts
        for part in range(parts):
            prediction = factor * model[0].sum() + (model[1].sum() if factor == 3 else 0)
            judged = prediction * critic[0] + model[3].sum()
            losses = [(judged + prediction * critic[1]).sum(), (0.5 * judged).sum()]
            if part == parts - 1:
                losses = [e.expect(loss) for e, loss in zip(exchanges, losses, strict=True)]
            torch.autograd.backward(losses[1], inputs=critic, retain_graph=True)
            torch.autograd.backward(losses[0], inputs=model[:3])
        found.append([values(model), values(critic)])
        for p in (*model, *critic):
            p.grad = None
    return found


def as_stored(compress):
    """The mean of 1 and 1 + 2^-9, which bf16 cannot hold."""
    parameter = nn.Parameter(torch.zeros(1))
    exchange = GradientExchange([parameter], compress)
    exchange.expect((parameter * (1 + distributed.rank() * 2**-9)).sum()).backward()
    return values([parameter])


def strides():
    """Whether channels-last gradients come back in their layout, with the right numbers."""
    weight = nn.Parameter(torch.zeros(2, 3, 2, 2).to(memory_format=torch.channels_last))
    factors = torch.arange(24.0).view(2, 3, 2, 2) + distributed.rank()
    exchange = GradientExchange([weight], compress=False)
    exchange.expect((weight * factors).sum()).backward()
    same = torch.equal(weight.grad, torch.arange(24.0).view(2, 3, 2, 2) + 0.5)
    return [same, weight.grad.is_contiguous(memory_format=torch.channels_last)]


class CopiesOfCounts(TorchDispatchMode):
    """Counts the copies of whole numbers, such as those of which parameters were used."""

    def __init__(self):
        super().__init__()
        self.num_copies = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.copy_.default and args[0].dtype == torch.int32:
            self.num_copies += 1
        return function(*args, **(kwargs or {}))


def copies_of_counts():
    """The numbers of these copies in backward passes, of which every second one uses all
    parameters. One copy goes to the device; to read another one back, the host must wait.
    """
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    exchange = GradientExchange(parameters, compress=False)
    found = []
    for num_used in (1, 2, 1, 2):
        loss = exchange.expect(torch.stack(parameters[:num_used]).sum())
        with CopiesOfCounts() as counter:
            torch.autograd.backward(loss, inputs=parameters)
        found.append(counter.num_copies)
        for parameter in parameters:
            parameter.grad = None
    return found


def save_findings(folder):
    findings = {
        "float32": two_players(compress=False),
        "bf16": two_players(compress=True),
        "stored": [as_stored(False), as_stored(True)],
        "strides": strides(),
        "copies": copies_of_counts(),
    }
    torch.save(findings, folder / f"{distributed.rank()}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    ended = finish_together(start_function(save_findings, folder))
    assert [(e.code, e.stderr) for e in ended] == [(0, ""), (0, "")]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("dtype", ["float32", "bf16"])
def test_both_players_get_the_means_and_unused_parameters_nothing(two, dtype):
    """The first parameter of the model gets (1 + 5) * factor: 6 and 18. Only rank 1 has a gradient
    of the second one, 6. The critic gets 0.5 times the prediction: of 1 * 6, and of 3 * 6 + 6.
    """
    first = [[[12.0, 12.0], [3.0, 3.0], None, None], [[7.5], None]]
    second = [[[24.0, 24.0], [6.0, 6.0], None, None], [[15.0], None]]
    assert [found[dtype] for found in two] == [[first, second]] * 2


def test_bf16_rounds_what_is_sent(two):
    assert [found["stored"] for found in two] == [[[[1 + 2**-10]], [[1.0]]]] * 2


def test_gradients_keep_the_layout_of_their_parameters(two):
    assert [found["strides"] for found in two] == [[True, True]] * 2


def test_the_host_waits_only_if_a_parameter_is_unused(two):
    for some, every, some_again, every_again in (found["copies"] for found in two):
        assert every < some
        assert (some_again, every_again) == (some, every)
