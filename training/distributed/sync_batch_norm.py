"""Batch normalization over the samples of all processes."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from common.distributed import processes as distributed
from modules.geometry import full_precision


def synchronize_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Replace every batch normalization in `network` by one whose statistics are those of the
    samples of all processes. The keys of the state dict stay the same.

    On CUDA it is torch's SyncBatchNorm, which has fused kernels but refuses tensors on the CPU.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, SyncBatchNorm.like(child))


class SyncBatchNorm(_BatchNorm):
    """Batch normalization over the samples of all processes, on any device: B x C x ...

    It computes the same as torch.nn.SyncBatchNorm. All processes must have the same number of
    samples. Statistics are float32 under autocast. In evaluation mode it exchanges nothing.
    """

    @classmethod
    def like(cls, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Self:
        """Make one with the settings, weights and statistics of `norm`, frozen if that is."""
        weight = norm.weight
        own = cls(
            norm.num_features, norm.eps, norm.momentum, device=weight.device, dtype=weight.dtype
        )
        own.load_state_dict(norm.state_dict())
        return own.requires_grad_(weight.requires_grad).train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        full = full_precision(x)
        count = distributed.world_size() * x.numel() // x.shape[1]
        others = [axis for axis in range(x.ndim) if axis != 1]  # all but the channels
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        # The variance is computed from centred values, since E[x^2] - E[x]^2 would lose digits.
        mean = _SumOfAll.apply(full.sum(dim=others)) / count
        centred = full - mean.view(shape)
        variance = _SumOfAll.apply(centred.square().sum(dim=others)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of axes."""


class _SumOfAll(torch.autograd.Function):
    """The sum of a tensor over all processes. Its gradient is the sum of their gradients, since the
    output of every process depends on the tensor of each.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        distributed.add_up(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.add_up(total)
        return total
