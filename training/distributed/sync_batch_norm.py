"""Batch normalization over the samples of all processes."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modules.geometry import full_precision
from training.distributed import processes as distributed


def synchronize_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Replace every BatchNorm2d in `network` by one that takes its statistics over the samples of
    all processes; names in the state dict stay.

    torch's own, with fused kernels, refuses tensors on the CPU.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SyncBatchNorm.like(child))


class SyncBatchNorm(nn.BatchNorm2d):
    """As torch.nn.SyncBatchNorm, on any device; every process has the same number of samples.

    The statistics are float32 under autocast. In evaluation mode it is BatchNorm2d, without any
    exchange.
    """

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> Self:
        """With the settings and the weights of `norm`."""
        weight = norm.weight
        own = cls(
            norm.num_features, norm.eps, norm.momentum, device=weight.device, dtype=weight.dtype
        )
        own.load_state_dict(norm.state_dict())
        return own.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        full = full_precision(x)
        count = distributed.world_size() * x.numel() // x.shape[1]
        # The variance of the centred values: the mean of squares less the square of the mean would
        # lose digits.
        mean = _SumOfAll.apply(full.sum(dim=(0, 2, 3))) / count
        centred = full - mean.view(1, -1, 1, 1)
        variance = _SumOfAll.apply(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes; what each of them makes of it comes back to all of them."""

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
