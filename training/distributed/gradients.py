"""Averages gradients over all processes while the backward pass still runs, by torch's
DistributedDataParallel (Li et al., 2020, PyTorch Distributed, section 3.2).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel


class GradientExchange:
    """Averages the gradients of one player's parameters over all processes.

    DistributedDataParallel divides the parameters into buckets of 25 MiB, the last ones first, and
    sends a bucket as soon as its gradients are there. It needs nothing of the forward pass but the
    loss, in whose graph it looks for the parameters that this step does not use; so it wraps a
    module that returns the loss as it is, and networks may be called by any method and compiled. A
    parameter that no process uses keeps no gradient. In a step that leaves a parameter of this
    process unused, the host waits for the device at the end of the backward pass, to learn whether
    another process has used it.

    Each player has an exchange of its own, since a parameter may be in the graph of the other
    player's loss only. The backward pass of a player ends when its exchange does.

    Args:
        parameters: of the player, in the order of the forward pass; frozen ones are left out.
        compress: send gradients in bf16: half of the bytes, and 8 bits of the mantissa. Each
            process rounds its own gradients, and sums are rounded, too.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], compress: bool) -> None:
        module = _Loss(parameters)
        self._spare = module.spare
        self._wrapper = DistributedDataParallel(
            module,
            init_sync=False,  # `copy_networks_from_main` has done that
            find_unused_parameters=True,
            gradient_as_bucket_view=True,  # no second copy of all gradients
        )
        if compress:
            self._wrapper.register_comm_hook(None, _send_in_bf16)

    def expect(self, loss: Tensor) -> Tensor:
        """Return `loss`; its backward pass averages what the gradients are after it, with what was
        accumulated before. Without this call a backward pass only accumulates.
        """
        # Any gradient marks the spare parameter as used in this step. Were it not, the host would
        # wait in every step.
        self._spare.grad = None
        self._spare.sum().backward()
        result: Tensor = self._wrapper(loss)
        return result


class _Loss(nn.Module):
    """A module with given parameters, whose output is its input."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.of_player = nn.ParameterList(parameters)
        # It is in no loss: if every parameter were, torch would warn on every start that it looks
        # for unused ones.
        self.spare = nn.Parameter(parameters[0].new_zeros(1))

    def forward(self, loss: Tensor) -> Tensor:
        return loss


def _send_in_bf16(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """torch's hook; by its own name it is refused in a torch without CUDA, where gloo can do it."""
    return bf16_compress_hook(state, bucket)
