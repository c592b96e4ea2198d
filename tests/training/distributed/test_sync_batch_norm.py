"""Batch normalization over several processes, compared with torch's on all samples."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from branches.model import Model
from common.distributed import processes as distributed
from tests.helpers.factories import tiny_config
from tests.helpers.kinds import KINDS, use_small_resnets
from training.distributed.sync_batch_norm import SyncBatchNorm, synchronize_batch_norm

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Threads:
    """Threads of this process that exchange tensors as processes do."""

    def __init__(self, size):
        self.size = size
        self.barrier = threading.Barrier(size, timeout=10)
        self.given = {}

    def add_up(self, tensor):
        self.given[threading.get_ident()] = tensor.clone()
        self.barrier.wait()
        total = torch.stack(list(self.given.values())).sum(dim=0)
        self.barrier.wait()
        tensor.copy_(total)

    def run(self, function, parts):
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(function, parts))


@pytest.fixture
def threads(monkeypatch):
    threads = Threads(2)
    monkeypatch.setattr(distributed, "add_up", threads.add_up)
    monkeypatch.setattr(distributed, "world_size", lambda: threads.size)
    return threads


def random_norm(kind=nn.BatchNorm2d):
    norm = kind(3, eps=1e-3, momentum=0.3).double()
    generator = torch.Generator().manual_seed(1)
    for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
        tensor.data.copy_(torch.rand(3, generator=generator) + 0.5)
    return norm


@pytest.mark.parametrize(
    ("kind", "shape", "layout"),
    [
        (nn.BatchNorm2d, (5, 6), torch.contiguous_format),
        (nn.BatchNorm2d, (5, 6), torch.channels_last),
        (nn.BatchNorm1d, (), torch.contiguous_format),
    ],
)
def test_equals_batch_norm_of_all_samples(threads, kind, shape, layout):
    """Outputs, running statistics and all gradients are the same; the processes' means differ."""
    x = torch.randn(4, 3, *shape, dtype=torch.float64) * 2
    x = x + torch.arange(4.0).view(4, 1, *(1 for _ in shape))
    weights = torch.randn_like(x)  # weights of the outputs in the loss
    whole = random_norm(kind)
    whole_x = x.clone().requires_grad_()
    whole_y = whole(whole_x)
    (whole_y * weights).sum().backward()

    def process(rows):
        norm = SyncBatchNorm.like(random_norm(kind))
        own_x = x[rows].to(memory_format=layout).requires_grad_()
        y = norm(own_x)
        (y * weights[rows]).sum().backward()
        return norm, own_x, y

    (a, *first), (b, *second) = threads.run(process, [slice(0, 2), slice(2, 4)])
    assert_close(torch.cat([first[1], second[1]]), whole_y)
    assert_close(torch.cat([first[0].grad, second[0].grad]), whole_x.grad)
    assert_close(a.weight.grad + b.weight.grad, whole.weight.grad)
    assert_close(a.bias.grad + b.bias.grad, whole.bias.grad)
    for norm in (a, b):
        assert_close(norm.state_dict(), whole.state_dict())
    assert a.num_batches_tracked == 1


def test_half_precision_keeps_its_statistics_in_float32(threads):
    x = (torch.randn(4, 3, 5, 6) + 100).bfloat16()
    whole = nn.BatchNorm2d(3)
    expected = whole(x)

    def process(rows):
        norm = SyncBatchNorm(3)
        return norm, norm(x[rows])

    (norm, first), (_, second) = threads.run(process, [slice(0, 2), slice(2, 4)])
    y = torch.cat([first, second])
    assert y.dtype == torch.bfloat16
    assert_close(y, expected, rtol=0.01, atol=0.01)
    assert norm.running_mean.dtype == torch.float32
    assert_close(norm.running_mean, whole.running_mean)
    assert_close(norm.running_var, whole.running_var, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm2d, (4, 4)), (nn.BatchNorm1d, ())])
def test_evaluation_exchanges_nothing(monkeypatch, kind, shape):
    def refuse(_tensor):
        raise AssertionError("no other process would answer")

    monkeypatch.setattr(distributed, "add_up", refuse)
    norm = random_norm(kind).eval()
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    own = SyncBatchNorm.like(norm)
    assert not own.training
    assert_close(own(x), norm(x), rtol=0, atol=0)
    with pytest.raises(AssertionError, match="no other process"):
        own.train()(x)


@pytest.mark.parametrize("motion", ["fomm", "tpsmm_avd"])
@pytest.mark.parametrize(("device", "kind"), [(CPU, SyncBatchNorm), (CUDA, nn.SyncBatchNorm)])
def test_every_batch_norm_of_a_model_is_replaced(device, kind, motion, monkeypatch):
    """State dicts fit both kinds, so a checkpoint of several processes fits one process. What is
    frozen stays so.
    """
    use_small_resnets(monkeypatch)
    config = tiny_config(*(() if motion == "fomm" else KINDS[motion]))
    plain, model = Model(config), Model(config)
    both = (nn.BatchNorm1d, nn.BatchNorm2d)
    norms = [name for name, m in plain.named_modules() if isinstance(m, both)]
    synchronize_batch_norm(model, device)
    modules = dict(model.named_modules())
    assert norms
    assert all(type(modules[name]) is kind for name in norms)
    assert_close(model.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert list(model.trained_networks) == list(plain.trained_networks)
    wanted, found = ([p.requires_grad for p in each.parameters()] for each in (plain, model))
    assert found == wanted
    for branch in model.branches.values():  # `model.branches` has the same objects
        assert not any(type(module) in both for module in branch.modules())
