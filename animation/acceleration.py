"""Rewrites networks for inference, so that they compute the same as in evaluation mode but faster.

    fold_norms        merges BatchNorm into the convolution before it
    regroup_outputs   computes the 3 output channels as 12 channels at half the resolution
    lay_out           channels-last memory; half precision where its error is not visible
    compile_networks  fused kernels

`optimize_for_inference` applies all but the last.
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

# These two small networks stay in float32: they compute coordinates, and masks that are cut at a
# threshold. In bf16 trained models lost 10 dB in animations and 5 dB in swapped backgrounds.
FULL_PRECISION = ("keypoint_detector", "mask_generator")

Result = TypeVar("Result")


def choose_precision(precision: Precision, device: torch.device) -> Choice:
    """Choose the precision of the networks for `precision` and `device`.

    `auto` means fp16 on CUDA, bf16 on a CPU if a timed trial finds it fast, and float32 otherwise.
    fp16 has 3 more bits than bf16, and BatchNorm keeps values in its range, but no common CPU
    computes in it. If the precision asked for is emulated on this device, a warning is logged.
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
    """Make a faster copy of `model` for `torch.inference_mode`.

    Args:
        dtype: precision of most networks; see `lay_out`. The errors were measured on models trained
            on puppets and on heads, as the largest difference from the predictions of `model` or
            the lowest PSNR of a clip. float32: 1e-5. float16: 2e-3, half a grey level; 77 dB.
            bfloat16: 58 dB, but 49 dB for backgrounds that BGRefine paints, because a pixel of the
            mask may end up on the other side of the threshold.
    """
    model = copy.deepcopy(model).eval()
    fold_norms(model)
    regroup_outputs(model)
    lay_out(model, dtype)
    return model


def fold_norms(model: Model) -> None:
    """Merge every BatchNorm into the convolution before it.

    The first norm of a residual block stays, because it follows a sum instead of a convolution.
    InstanceNorm stays: its statistics are those of the image.
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
    """Replaces a convolution at stride 1 with few output channels by a faster equivalent.

    B x C x H x W -> B x C' x H x W, with H and W even. GPU and CPU kernels compute a multiple of 8
    or 16 channels, so most of their work is wasted if there are 3. Here 2 x 2 output pixels are
    computed as 4 C' channels of one pixel, by a kernel that is larger by 1 and has stride 2. The
    products are the same, plus some with 0.

    Args:
        conv: the convolution to replace; odd square kernel, padded to keep the size.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        side, channels = conv.kernel_size[0], conv.out_channels
        assert conv.bias is not None
        self.conv = nn.Conv2d(
            conv.in_channels, 4 * channels, side + 1, stride=2, padding=conv.padding[0]
        )
        # The kernel for pixel (y, x) of the 2 x 2 is shifted by (y, x).
        shifts = [F.pad(conv.weight, (x, 1 - x, y, 1 - y)) for y in (0, 1) for x in (0, 1)]
        self.conv.weight = nn.Parameter(torch.stack(shifts, dim=1).flatten(0, 1))
        self.conv.bias = nn.Parameter(conv.bias.repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


def regroup_outputs(model: Model) -> None:
    """Replace the last layer of every network that outputs a picture by a `RegroupedConv2d`."""
    for network in model.networks.values():
        for name in ("final", "final_hourglass"):
            layer = getattr(network, name, None)
            if isinstance(layer, nn.Conv2d):
                network.register_module(name, RegroupedConv2d(layer))


class CastInput(nn.Module):
    """Converts its input to the type and the memory layout of the layers after it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype, memory_format=torch.channels_last)


def lay_out(model: Model, dtype: torch.dtype) -> None:
    """Use channels-last memory in all networks, and `dtype` where its error is not visible.

    The networks in FULL_PRECISION and the generator's encoder stay in float32. The encoder runs
    only once for a source, and its rounding error would be in every frame (8 dB). The networks
    compute warps, softmax, sigmoid and coordinates in float32 anyway.
    """
    model.to(memory_format=torch.channels_last)
    for network_name, network in model.networks.items():
        for name, part in list(network.named_children()):
            is_encoder = isinstance(network, Generator) and name in ("first", "down_blocks")
            exact = is_encoder or network_name in FULL_PRECISION
            part_dtype = torch.float32 if exact else dtype
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d):  # other layers have few weights
                    layer.to(part_dtype)
            # After the inputs of networks, and after the warp, which is float32 and planar.
            if isinstance(part, Hourglass | SameBlock) or name == "bottleneck":
                network.register_module(name, nn.Sequential(CastInput(part_dtype), part))


def compile_networks(model: Model) -> None:
    """Compile every network as one graph when its first batch of frames comes."""
    for network in model.networks.values():
        name = "decode" if isinstance(network, Generator) else "forward"
        setattr(network, name, compile_whole_batches(getattr(network, name)))


def compile_whole_batches(compute: Callable[..., Result]) -> Callable[..., Result]:
    """Compile `compute`, a function of tensors B x ..., for the first B greater than 1.

    Every other B uses `compute` as it is, because compiling takes a minute for each B. These are
    the source alone and the last frames of a clip.

    Raises:
        UserError: raised by the returned function if `compute` cannot be compiled.
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
