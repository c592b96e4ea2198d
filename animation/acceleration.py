"""Rewrites networks for inference, so that they compute the same as in evaluation mode but faster.

    fold_norms        merges BatchNorm into the convolution before it
    regroup_outputs   computes the 3 output channels as 12 channels at half the resolution
    lay_out           channels-last memory; half precision where its error is not visible
    compile_networks  fused kernels

`optimize_for_inference` applies all but the last.
"""

import copy
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from branches.model import Model
from common import speed_trial
from common.errors import UserError
from common.speed_trial import Choice
from modules.blocks import DownBlock, Hourglass, ResBlock, SameBlock, UpBlock
from modules.generator import Generator
from modules.monkey_net.dense_motion import GroupBlock
from modules.monkey_net.generator import MonkeyNetGenerator
from modules.tpsmm.inpainting import InpaintingNetwork
from modules.x2face import UNetDownBlock, UNetUpBlock

logger = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bf16", "fp16"]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# These networks stay in float32: they compute coordinates, and masks that are cut at a threshold.
# In bf16 trained models of kind fomm lost 10 dB in animations and 5 dB in swapped backgrounds.
FULL_PRECISION = (
    "keypoint_detector",
    "mask_generator",
    "background_motion",
    "avd",
    "embedding",
    "driving",
)

# The parts that encode the source, by the class of the network. They run once for a source.
ENCODERS: Final[Mapping[type[nn.Module], tuple[str, ...]]] = {
    Generator: ("first", "down_blocks"),
    MonkeyNetGenerator: ("encoder",),
    InpaintingNetwork: ("first", "down_blocks"),
}

# Convolutions and the BatchNorm right after each, by the class of the block that has both.
_NORMS: Final[tuple[tuple[type[nn.Module], str, str], ...]] = (
    (DownBlock, "conv", "norm"),
    (UpBlock, "conv", "norm"),
    (SameBlock, "conv", "norm"),
    (ResBlock, "conv1", "norm2"),
    (GroupBlock, "conv", "norm"),
    (UNetDownBlock, "conv", "norm"),
    (UNetUpBlock, "conv", "norm"),
    (ResNet, "conv1", "bn1"),
    (BasicBlock, "conv1", "bn1"),
    (BasicBlock, "conv2", "bn2"),
)

Result = TypeVar("Result")


def choose_precision(
    precision: Precision, device: torch.device, networks: Collection[str] = ()
) -> Choice:
    """Choose the precision of the networks for `precision` and `device`.

    It is float32 for a model whose `networks`, by name, all stay in that anyway.

    `auto` means fp16 on CUDA, bf16 on a CPU if a timed trial finds it fast, and float32 otherwise.
    fp16 has 3 more bits than bf16, and BatchNorm keeps values in its range, but no common CPU
    computes in it. If the precision asked for is emulated on this device, a warning is logged.
    """
    if networks and set(networks) <= set(FULL_PRECISION):
        return Choice("float32", "all of them compute coordinates")
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
        dtype: precision of most networks; see `lay_out`. The errors were measured on motion models
            of every kind trained on puppets, and on one trained on heads, as the largest difference
            from the predictions of `model` or the lowest PSNR of a clip. float32: 4e-5. float16:
            5e-3, one grey level; 76 dB. bfloat16: 4e-2; 56 dB, but 49 dB for backgrounds that
            BGRefine paints, because a pixel of the mask may end up on the other side of the
            threshold.
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
        for kind, conv, norm in _NORMS:
            if isinstance(block, kind):
                _fold(block, conv, norm)
        if isinstance(block, BasicBlock) and block.downsample is not None:
            _fold(block.downsample, "0", "1")


def _fold(block: nn.Module, conv: str, norm: str) -> None:
    """Merge the child `norm` of a block into its child `conv`, if it is a BatchNorm."""
    layer = getattr(block, norm)
    if isinstance(layer, nn.BatchNorm2d):
        block.register_module(conv, fuse_conv_bn_eval(getattr(block, conv), layer))
        block.register_module(norm, nn.Identity())


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
    """Replace the last layer of every network that outputs a picture by a `RegroupedConv2d`.

    A kernel of 1 x 1 stays: it would become four times the products.
    """
    for network in model.networks.values():
        for name in ("final", "final_hourglass"):
            layer = getattr(network, name, None)
            if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
                network.register_module(name, RegroupedConv2d(layer))


class CastInput(nn.Module):
    """Converts its input to the type and the memory layout of the layers after it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype, memory_format=torch.channels_last)


class ChannelsLastInstanceNorm(nn.Module):
    """Replaces an InstanceNorm by the same normalization that keeps channels-last memory on a CPU.

    torch's InstanceNorm copies to planar memory and back. With a group for each channel GroupNorm
    computes the same without a copy: at 64 x 128 x 128 in 1.3 ms instead of 29.
    """

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if x.device.type == "cpu":
            return F.group_norm(x, norm.num_features, norm.weight, norm.bias, norm.eps)
        # Elsewhere GroupNorm is planar too, and takes no weights of another precision.
        normalized: Tensor = norm(x)
        return normalized


def lay_out(model: Model, dtype: torch.dtype) -> None:
    """Use channels-last memory in all networks, and `dtype` where its error is not visible.

    The networks in FULL_PRECISION and the generators' encoders stay in float32. An encoder runs
    only once for a source, and its rounding error would be in every frame (8 dB). The networks
    compute warps, softmax, sigmoid and coordinates in float32 anyway. So each part with
    convolutions casts what it gets: inputs of networks, and maps after a warp, are float32 and
    planar.
    """
    model.to(memory_format=torch.channels_last)
    for block in list(model.modules()):
        for name, layer in block.named_children():
            if isinstance(layer, nn.InstanceNorm2d):
                block.register_module(name, ChannelsLastInstanceNorm(layer))
    for network_name, network in model.networks.items():
        encoder = ENCODERS.get(type(network), ())
        for name, part in list(network.named_children()):
            exact = name in encoder or network_name in FULL_PRECISION
            part_dtype = torch.float32 if exact else dtype
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d):  # other layers have few weights
                    layer.to(part_dtype)
            if isinstance(part, nn.ModuleList):
                for index in range(len(part)):
                    _cast_input(part, str(index), part_dtype)
            elif isinstance(part, Hourglass):  # which is also asked for its maps
                _cast_input(part, "encoder", part_dtype)
            else:
                _cast_input(network, name, part_dtype)


def _cast_input(network: nn.Module, name: str, dtype: torch.dtype) -> None:
    """Let the child `name` of a network, if it has convolutions, cast its input."""
    part = network.get_submodule(name)
    if any(isinstance(layer, nn.Conv2d) for layer in part.modules()):
        network.register_module(name, nn.Sequential(CastInput(dtype), part))


def compile_networks(model: Model) -> None:
    """Compile every network as one graph when its first batch of frames comes."""
    for network in model.networks.values():
        name = "decode" if type(network) in ENCODERS else "forward"
        setattr(network, name, compile_whole_batches(getattr(network, name)))


def compile_whole_batches(compute: Callable[..., Result]) -> Callable[..., Result]:
    """Compile `compute`, a function of tensors B x ..., for the first B greater than 1.

    Its first argument is a tensor, or a sequence of tensors. Every other B uses `compute` as it is,
    because compiling takes a minute for each B. These are the source alone and the last frames of a
    clip.

    Raises:
        UserError: raised by the returned function if `compute` cannot be compiled.
    """
    compiled = cast(Callable[..., Result], torch.compile(compute, dynamic=False))
    chosen: int | None = None

    def run(first: Tensor | Sequence[Tensor], *others: object) -> Result:
        nonlocal chosen
        batch = len(first if isinstance(first, Tensor) else first[0])
        if chosen is None and batch > 1:
            chosen = batch
        if batch != chosen:
            return compute(first, *others)
        try:
            return compiled(first, *others)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).split("\n", 1)[0]
            raise UserError(f"--compile: {reason}; mend it, or leave --compile out") from error

    return run
