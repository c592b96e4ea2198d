"""Runs the project's code on a device that is not there: torch computes shapes without numbers, and
refuses to mix devices. What would make a GPU wait, or copy from the CPU, is recorded.

The backward pass needs a driver on a fake CUDA device, but none on torch's device `meta`, which
has no autocast. So the forward pass runs on the former in every precision, and whole steps on the
latter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from common.batch_random import BatchRandom
from datasets.pairs import PairBatch
from tests.helpers.factories import WaitsForTheDevice

CUDA, META = torch.device("cuda", 0), torch.device("meta")
_AUTOCAST = torch.autocast


def draws_on(device: torch.device) -> BatchRandom:
    """Random numbers on a device that has no generator, drawn by one of the CPU."""

    class Draws(BatchRandom):
        @property
        def device(self):
            return device

    return Draws(torch.Generator().manual_seed(0))


class WaitsAndCopies(WaitsForTheDevice):
    """Also records operations that get or give a tensor on the CPU, such as copies between devices.

    Some operations have no fake kernel: random numbers are given as a tensor like their first
    argument, and the update of parameters in place does nothing.
    """

    WITHOUT_KERNEL = ("_sample_dirichlet", "poisson")
    IN_PLACE = ("_fused_sgd_",)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.WITHOUT_KERNEL:
            result = torch.empty_like(args[0])
        elif name in self.IN_PLACE:
            result = None
        else:
            result = super().__torch_dispatch__(function, types, args, kwargs)
        tensors = (x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor))
        if any(x.device.type == "cpu" for x in tensors):
            self.found.append(f"{name} on the CPU")
        return result


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Context manager: tensors that are made on CUDA within it are fake.

    cuDNN is off, since torch would ask for its version. Autocast needs a device to be there, but
    the mode must not find one when it begins, and torch 2.11 later, or they would start it.
    """
    with (
        torch.backends.cudnn.flags(enabled=False),
        FakeTensorMode(allow_non_fake_inputs=False),
        patch("torch._subclasses.fake_tensor.init_gpu_context"),
        patch("torch.cuda.is_available", lambda: True),
        patch("torch.cuda.is_bf16_supported", lambda *_: True),
    ):
        yield


@contextmanager
def steps_on_meta() -> Iterator[None]:
    """Context manager: the fused optimizers and autocast, which is off there, accept META."""

    def autocast(kind, *args, **kwargs):
        return _AUTOCAST("cpu" if kind == "meta" else kind, *args, **kwargs)

    name = "torch.optim.optimizer._get_fused_kernels_supported_devices"
    with patch(name, lambda: ["meta"]), patch("torch.autocast", autocast):
        yield


def on_cuda(x: Tensor) -> Tensor:
    """A fake tensor on CUDA of the shape, memory layout and type of `x`."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=CUDA)


def batch_on_cuda(batch: PairBatch) -> PairBatch:
    """Like `PairBatch.to`."""
    return batch._replace(
        frames=on_cuda(batch.frames),
        color_factors=on_cuda(batch.color_factors),
        color_order=on_cuda(batch.color_order),
        placement=None if batch.placement is None else on_cuda(batch.placement),
    )


def move_to_cuda(*networks: nn.Module | None) -> None:
    """Replace all parameters and buffers of the networks by fake ones; `nn.Module.to` cannot.

    A tensor that is neither stays where it is, as with `to`, and so is found.
    """
    for module in (m for network in networks if network is not None for m in network.modules()):
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(on_cuda(p), requires_grad=p.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = on_cuda(buffer)
