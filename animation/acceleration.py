"""Networks rewritten for inference: what they compute in evaluation mode, from less work.

    fold_norms        BatchNorm becomes part of the convolution before it
    regroup_outputs   the last layer's 3 channels are computed as 12 at half the resolution
    lay_out           channels-last memory; half precision where pictures do not show it
    compile_networks  fused kernels

`optimize_for_inference` pulls all but the last.
"""

import copy
import logging
from collections.abc import Callable
from typing import Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from branches.model import Model
from common import speed_trial
from common.errors import UserError
from common.speed_trial import Choice
from modules.blocks import DownBlock, Hourglass, ResBlock, SameBlock, UpBlock
from modules.generator import Generator

logger = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bf16", "fp16"]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Coordinates, and masks that are cut at a threshold: in bf16 their networks, which are small, would
# cost trained models 10 dB of the animation and 5 dB of a changed background.
FULL_PRECISION = ("keypoint_detector", "mask_generator")

Result = TypeVar("Result")


def choose_precision(precision: Precision, device: torch.device) -> Choice:
    """`auto`: fp16 on CUDA; on a CPU bf16 where a timed trial finds it fast; float32 elsewhere.

    fp16 has 3 bits more than bf16, and what BatchNorm keeps in bounds does not need bf16's range;
    but no common CPU computes in it. A precision that is asked for and emulated gives a warning.
    """
    if precision != "auto":
        warning = speed_trial.emulation_warning("--precision", precision, device)
        if warning is not None:
            logger.warning(warning)
        return Choice(precision, "as --precision says")
    if device.type == "cuda":
        return Choice("fp16", "the fastest on CUDA")
    return speed_trial.choose_precision(device)


def optimize_for_inference(model: Model, dtype: torch.dtype) -> Model:
    """A copy of `model` for `torch.inference_mode`, faster by the levers above.

    Args:
        dtype: what it costs is measured on models trained on puppets and on heads, largest
            difference of the predictions and lowest PSNR of a clip to those of `model`. float32:
            1e-5. float16: 2e-3, half a grey level; 77 dB. bfloat16: 58 dB, but 49 for backgrounds
            that BGRefine paints, where a mask's pixel may fall on the threshold's other side.
    """
    model = copy.deepcopy(model).eval()
    fold_norms(model)
    regroup_outputs(model)
    lay_out(model, dtype)
    return model


def fold_norms(model: Model) -> None:
    """Let every convolution do the work of the BatchNorm behind it.

    The first norm of a residual block stays: it follows a sum, not a convolution. InstanceNorm
    stays: its statistics are those of the image.
    """
    for block in model.modules():
        if isinstance(block, DownBlock | UpBlock | SameBlock):
            if isinstance(block.norm, nn.BatchNorm2d):
                block.conv = fuse_conv_bn_eval(block.conv, block.norm)
                block.register_module("norm", nn.Identity())
        elif isinstance(block, ResBlock) and isinstance(block.norm2, nn.BatchNorm2d):
            block.conv1 = fuse_conv_bn_eval(block.conv1, block.norm2)
            block.register_module("norm2", nn.Identity())


class RegroupedConv2d(nn.Module):
    """A convolution at stride 1 to few channels, B x C x H x W -> B x C' x H x W, H and W even.

    Kernels compute a multiple of 8 or 16 channels, so that of the work for 3 most is lost. Here
    each 2 x 2 pixels are 4 C' channels of one pixel, from a kernel larger by 1 at stride 2: the
    same products, and some with 0.

    Args:
        conv: an odd square kernel, padded to keep the size.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        side, channels = conv.kernel_size[0], conv.out_channels
        assert conv.bias is not None
        self.conv = nn.Conv2d(
            conv.in_channels, 4 * channels, side + 1, stride=2, padding=conv.padding[0]
        )
        # The kernel of pixel (y, x) of the four begins at (y, x).
        shifts = [F.pad(conv.weight, (x, 1 - x, y, 1 - y)) for y in (0, 1) for x in (0, 1)]
        self.conv.weight = nn.Parameter(torch.stack(shifts, dim=1).flatten(0, 1))
        self.conv.bias = nn.Parameter(conv.bias.repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


def regroup_outputs(model: Model) -> None:
    """Make a `RegroupedConv2d` of the last layer of every network that paints."""
    for network in model.networks.values():
        for name in ("final", "final_hourglass"):
            layer = getattr(network, name, None)
            if isinstance(layer, nn.Conv2d):
                network.register_module(name, RegroupedConv2d(layer))


class Entrance(nn.Module):
    """The type and the memory layout in which the layers behind it compute."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype, memory_format=torch.channels_last)


def lay_out(model: Model, dtype: torch.dtype) -> None:
    """Channels-last memory in all networks, and `dtype` in those where pictures do not show it.

    That is all but FULL_PRECISION and a generator's encoder: it runs once for a source, and its
    rounding would show in every frame (8 dB). Warps, softmax, sigmoid and coordinates are float32
    in the networks themselves.
    """
    model.to(memory_format=torch.channels_last)
    for network_name, network in model.networks.items():
        for name, part in list(network.named_children()):
            is_encoder = isinstance(network, Generator) and name in ("first", "down_blocks")
            exact = is_encoder or network_name in FULL_PRECISION
            part_dtype = torch.float32 if exact else dtype
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d):  # no other has weights that are worth it
                    layer.to(part_dtype)
            # Behind inputs of networks, and behind the warp, which is float32 and planar.
            if isinstance(part, Hourglass | SameBlock) or name == "bottleneck":
                network.register_module(name, nn.Sequential(Entrance(part_dtype), part))


def compile_networks(model: Model) -> None:
    """Let every network run as one graph, compiled when the first batch of frames comes."""
    for network in model.networks.values():
        name = "decode" if isinstance(network, Generator) else "forward"
        setattr(network, name, compile_whole_batches(getattr(network, name)))


def compile_whole_batches(compute: Callable[..., Result]) -> Callable[..., Result]:
    """`compute`, a function of tensors B x ..., compiled for the first B greater than 1.

    Each B would take its own minute to compile, so that the source alone and the frames that are
    left at the end of a clip go through `compute` as it is.

    Raises:
        UserError: from the function, where it cannot be compiled.
    """
    compiled = cast(Callable[..., Result], torch.compile(compute, dynamic=False))
    chosen: int | None = None

    def run(first: Tensor, *others: object) -> Result:
        nonlocal chosen
        if chosen is None and len(first) > 1:
            chosen = len(first)
        if len(first) != chosen:
            return compute(first, *others)
        try:
            return compiled(first, *others)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).split("\n", 1)[0]
            raise UserError(f"--compile: {reason}; mend it, or leave --compile out") from error

    return run
