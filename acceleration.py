"""What makes a step fast without changing what it computes: each lever a key of `train`.

    precision      autocast (`optimization.autocast`), and frozen weights stored as it casts them
    channels_last  memory layout of images, maps and weights
    tf32           CUDA's fast float32 convolutions
    compile        fused kernels

What to do where memory does not suffice, or the compiler fails, is said here too (`advice`).

What is fast whatever the config says stands where it is computed: `modules.blocks.UpConv2d`,
`losses.Perceptual`, `adversary.Adversary.judge`, `optimization.Optimizer.backward`.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch._functorch import config as functorch_config

import distributed
from adversary import Adversary
from config import Config, TrainConfig
from errors import UserError
from losses import Perceptual
from model import Model
from modules.mask_generator import MaskGenerator
from optimization import AUTOCAST_DTYPES
from sync_batch_norm import SyncBatchNorm

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of mallopt(3)
# The allocator for the CPU names itself where there is no memory; CUDA without torch's allocator.
_NO_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory")


def prepare_networks(
    model: Model, adversary: Adversary | None, perceptual: Perceptual, train: TrainConfig
) -> None:
    """Lay the networks, on their device, out for a run; state dicts stay as they are."""
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    for network in (model, adversary, perceptual):
        if network is not None:
            network.to(memory_format=layout)
    # Of convolutions alone, since keypoints, grids and inverses are matrix products. (The blur is a
    # convolution too; in float32 one of each channel by itself does not run on tensor cores.)
    torch.backends.cudnn.allow_tf32 = train.tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    if train.precision in AUTOCAST_DTYPES:
        # Autocast would cast weights that need no gradient anew in every call.
        perceptual.vgg.convs.to(AUTOCAST_DTYPES[train.precision])


def keep_freed_memory(keep: bool = True) -> None:
    """Let this process keep what tensors on the CPU have freed: glibc would give large blocks back
    to the system at once, and get them anew, page by page, in every operation.

    Does nothing with another C library. `keep` False: as by default.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0 if keep else 2**16)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1 if keep else 2**17)
        library.mallopt(_M_TOP_PAD, 2**28 if keep else 2**17)


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


@contextmanager
def memory_advice(config: Config, num_samples: int) -> Iterator[None]:
    """Within it running out of memory ends in one line that says what to set.

    Args:
        num_samples: of the batch, in this process.

    Raises:
        UserError: there was not enough memory.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one, and all that the CPU has
        is_known = any(text in str(error) for text in _NO_MEMORY)
        if not isinstance(error, torch.OutOfMemoryError) and not is_known:
            raise
        raise UserError(_how_to_save_memory(config, num_samples)) from error


@contextmanager
def compile_advice(train: TrainConfig) -> Iterator[None]:
    """Within it a compiler that fails, or is not there, ends in one line.

    Raises:
        UserError: from the function that could not be compiled.
    """
    try:
        yield
    except RuntimeError as error:
        # Looked up only where it was used: the compiler takes a second to import.
        if train.compile == "none" or not isinstance(
            error, torch._dynamo.exc.BackendCompilerFailed
        ):
            raise
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"train.compile: {reason}; mend it, or set train.compile=none") from error


@contextmanager
def advice(config: Config, num_samples: int) -> Iterator[None]:
    """Both of the above."""
    with memory_advice(config, num_samples), compile_advice(config.train):
        yield


def _how_to_save_memory(config: Config, num_samples: int) -> str:
    train = config.train
    at_once = train.micro_batch or num_samples
    height, width = config.data.size
    cures = []
    if at_once > 1:
        needs_another = config.background is not None and config.background.foreign_probability > 0
        sizes = range(2 if needs_another else 1, at_once // 2 + 1)
        cures += [f"train.micro_batch={n}" for n in sizes if num_samples % n == 0][-1:]
    if train.precision not in AUTOCAST_DTYPES:
        cures.append("train.precision=bf16")
    if not cures or at_once == 1:
        cures.append(f"data.image_size smaller than {height} x {width}")
    found = f"out of memory with {at_once} sample{'s' * (at_once > 1)} at a time; set "
    return found + ", or ".join(cures)


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
