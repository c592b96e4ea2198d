"""Optimizations of the training step that keys of `train` switch on. They change its numbers only
by rounding.

    precision      autocast (`optimization.autocast`), and frozen weights stored in its dtype
    channels_last  memory layout of images, feature maps and weights
    tf32           fast float32 convolutions on CUDA
    compile        fused kernels

Optimizations without a key are part of the code that they speed up: `modules.blocks.UpConv2d`,
`losses.Perceptual`, `adversary.Adversary.discriminate`, `optimization.Optimizer.backward` and
`common.machine`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch
from torch import nn
from torch._functorch import config as functorch_config

from branches.model import Model
from common.distributed import processes as distributed
from common.speed_trial import HALF_DTYPES
from configs.schema import TrainConfig
from losses import Perceptual
from modules.mask_generator import MaskGenerator
from modules.tpsmm.inpainting import InpaintingNetwork
from training.adversary import Adversary
from training.distributed.sync_batch_norm import SyncBatchNorm

# The methods that a step calls, of networks of which it does not call `forward`.
_STEP_METHODS: Final = {MaskGenerator: ("logits",), InpaintingNetwork: ("encode", "decode")}


def prepare_networks(
    model: Model, adversary: Adversary | None, perceptual: Perceptual, train: TrainConfig
) -> None:
    """Set the networks' memory layout and TF32, and store frozen weights in half precision.

    The networks must be on their device. The state dicts of trained networks stay the same.

    Args:
        train: the section without any `auto`.
    """
    assert "auto" not in (train.precision, train.channels_last), "resolve was not called"
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    for network in (model, adversary, perceptual):
        if network is not None:
            network.to(memory_format=layout)
    # TF32 is for convolutions only, since keypoints, grids and inverses are matrix products. (The
    # blur is a convolution too, but depthwise, which does not use tensor cores in float32.)
    torch.backends.cudnn.allow_tf32 = train.tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    if train.precision in HALF_DTYPES:
        # Autocast casts weights without gradient again in every call.
        perceptual.vgg.convs.to(HALF_DTYPES[train.precision])


def compile_networks(
    model: Model, adversary: Adversary | None, perceptual: Perceptual, train: TrainConfig
) -> None:
    """Compile every network, and the perceptual loss, as one graph each, at its first call.

    With several processes a network becomes several graphs, which end at its batch normalizations,
    where sums are exchanged. The code between the networks stays uncompiled: it is cheap, or draws
    random numbers. A new batch size or evaluation mode would start the compiler again, so
    everything but the training step should run within `uncompiled`.
    """
    if train.compile == "none":
        return
    # Both players' backward passes run through the discriminator's graph, so the first one must
    # not overwrite tensors that the second one needs.
    functorch_config.donated_buffer = adversary is None
    if distributed.world_size() > 1:
        # The blocks between batch normalizations count as recompilations of one function; with the
        # default limit of 8 most of them would run uncompiled.
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
    """With CUDA graphs: allow that the memory of the last step's outputs is overwritten."""
    if train.compile in ("reduce-overhead", "max-autotune"):
        torch.compiler.cudagraph_mark_step_begin()


def uncompiled(train: TrainConfig) -> AbstractContextManager[object]:
    """Context manager: compiled networks run uncompiled within it."""
    if train.compile == "none":
        return nullcontext()  # the compiler takes a second to import
    return torch.compiler.set_stance("force_eager")


def _entry_points(
    model: Model, adversary: Adversary | None, perceptual: Perceptual
) -> Iterator[tuple[nn.Module, str]]:
    """The methods that a step calls: each as a module and the name of its method."""
    for network in model.networks.values():
        for name in _STEP_METHODS.get(type(network), ("forward",)):
            yield network, name
    if adversary is not None:
        yield adversary.discriminator, "forward"
    yield perceptual, "forward"
    yield perceptual, "loss"
