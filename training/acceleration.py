"""What makes a step fast and changes its numbers by rounding alone: each lever a key of `train`.

    precision      autocast (`optimization.autocast`), and frozen weights stored as it casts them
    channels_last  memory layout of images, maps and weights
    tf32           CUDA's fast float32 convolutions
    compile        fused kernels

What is fast whatever the config says stands where it is computed: `modules.blocks.UpConv2d`,
`losses.Perceptual`, `adversary.Adversary.discriminate`, `optimization.Optimizer.backward` and
`common.machine`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch._functorch import config as functorch_config

from branches.model import Model
from common.speed_trial import HALF_DTYPES
from configs.schema import TrainConfig
from losses import Perceptual
from modules.mask_generator import MaskGenerator
from training.adversary import Adversary
from training.distributed import processes as distributed
from training.distributed.sync_batch_norm import SyncBatchNorm


def prepare_networks(
    model: Model, adversary: Adversary | None, perceptual: Perceptual, train: TrainConfig
) -> None:
    """Lay the networks, on their device, out for a run; state dicts stay as they are.

    Args:
        train: without `auto`.
    """
    assert "auto" not in (train.precision, train.channels_last), "resolve was not called"
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    for network in (model, adversary, perceptual):
        if network is not None:
            network.to(memory_format=layout)
    # Of convolutions alone, since keypoints, grids and inverses are matrix products. (The blur is a
    # convolution too; in float32 one of each channel by itself does not run on tensor cores.)
    torch.backends.cudnn.allow_tf32 = train.tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    if train.precision in HALF_DTYPES:
        # Autocast would cast weights that need no gradient anew in every call.
        perceptual.vgg.convs.to(HALF_DTYPES[train.precision])


def compile_networks(
    model: Model, adversary: Adversary | None, perceptual: Perceptual, train: TrainConfig
) -> None:
    """Let every network, and the perceptual loss, run as one graph each, compiled at its first use;
    with several processes as the pieces between batch normalizations, which exchange sums.

    What lies between them draws random numbers or is small. Another batch size, or evaluation mode,
    would be compiled anew: all but the step should run within `uncompiled`.
    """
    if train.compile == "none":
        return
    # The players' backward passes share the graph through the discriminator, so the first must not
    # overwrite what the second needs.
    functorch_config.donated_buffer = adversary is None
    if distributed.world_size() > 1:
        # Each block between two batch normalizations is a graph of its own, of one and the same
        # function: with the usual limit of 8 most would run uncompiled.
        torch._dynamo.config.recompile_limit = sum(1 for _ in model.modules())
    for module in model.modules():
        if isinstance(module, (nn.SyncBatchNorm, SyncBatchNorm)):
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]
    for owner, name in _entry_points(model, adversary, perceptual):
        compiled = torch.compile(
            getattr(owner, name),
            mode=None if train.compile == "default" else train.compile,
            dynamic=False,
            fullgraph=distributed.world_size() == 1,
        )
        setattr(owner, name, compiled)


def begin_step(train: TrainConfig) -> None:
    """With CUDA graphs: what the last step has left in their memory may be overwritten."""
    if train.compile in ("reduce-overhead", "max-autotune"):
        torch.compiler.cudagraph_mark_step_begin()


def uncompiled(train: TrainConfig) -> AbstractContextManager[object]:
    """Within it compiled networks run as they are written."""
    if train.compile == "none":
        return nullcontext()  # the compiler takes a second to import
    return torch.compiler.set_stance("force_eager")


def _entry_points(
    model: Model, adversary: Adversary | None, perceptual: Perceptual
) -> Iterator[tuple[nn.Module, str]]:
    """What a step calls, as a module and the name of its method."""
    for network in model.networks.values():
        yield network, "logits" if isinstance(network, MaskGenerator) else "forward"
    if adversary is not None:
        yield adversary.discriminator, "forward"
    yield perceptual, "forward"
    yield perceptual, "loss"
