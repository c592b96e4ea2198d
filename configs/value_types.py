"""The kinds of values that a config may have, each with its range.

Every number has an upper bound, since a config may come with an untrusted checkpoint: a network of
ten million blocks would fill the memory before the program notices that the weights do not fit it.
The bounds are far above what anybody uses.
"""

import math
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

MIN_SIDE: Final = 16  # pixels; smaller images are too small for every network of this project
# Published models work at 64 to 512 pixels; at this side one sample takes some 50 GB in training.
MAX_SIDE: Final = 2048


def _check_scale(scale: float) -> float:
    mantissa, _ = math.frexp(scale)
    if mantissa != 0.5 or scale < 2**-10:
        raise ValueError("a power of two of at most 1: 1, 0.5, 0.25, 0.125, ...")
    return scale


def _check_image_size(size: Any) -> Any:
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(
        type(side) is int and MIN_SIDE <= side <= MAX_SIDE for side in sides
    ):
        raise ValueError(
            f"one whole number or [height, width], each at least {MIN_SIDE} and at most {MAX_SIDE}"
        )
    return size


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_layer_weights(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= 10 or not all(_is_number(v) and 0 <= v <= 1e38 for v in values):
        raise ValueError("one number of at least 0 for all layers, or a list of such numbers")
    return [float(v) for v in value] if isinstance(value, list) else float(value)


def _check_heatmap_norm(value: Any) -> Any:
    if value != "sum" and not (_is_number(value) and 0 < value <= 1e38):
        raise ValueError("a number above 0, or sum")
    return value if value == "sum" else float(value)


def _check_switch(value: Any) -> Any:
    if value is not True and value is not False and value != "auto":
        raise ValueError("true, false or auto")
    return value


def _check_mask_inputs(value: Any) -> Any:
    if isinstance(value, list) and len(value) == len({str(name) for name in value}):
        return value
    raise ValueError("a list of source_mask and driving_mask, of one of them, or []")


Probability = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1e38)]  # about the largest number in float32
Positive = Annotated[float, Field(gt=0, le=1e38)]
Strength = Annotated[float, Field(ge=0, le=10)]  # of jitter; at 1 the factor is drawn from [0, 2]
ResizeRatio = Annotated[float, Field(ge=0.25, le=4)]
Scale = Annotated[float, Field(gt=0, le=1), AfterValidator(_check_scale)]  # 1 / 2^n
ImageSize = Annotated[int | list[int], BeforeValidator(_check_image_size)]  # or [height, width]
# Of a loss: one weight for all layers, or one for each.
LayerWeights = Annotated[float | list[float], BeforeValidator(_check_layer_weights)]
# What heatmaps are divided by: a number, or each by its own sum.
HeatmapDivisor = Annotated[float | Literal["sum"], BeforeValidator(_check_heatmap_norm)]
Switch = Annotated[bool | Literal["auto"], BeforeValidator(_check_switch)]

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Steps = Annotated[int, Field(ge=1, le=10**9)]  # a thousand a second for ten days
Epoch = Annotated[int, Field(ge=0, le=10**9)]
Minutes = Annotated[float, Field(gt=0, le=1e7)]  # 19 years
Repeats = Annotated[int, Field(ge=1, le=10**5)]  # published: up to 150
NumClips = Annotated[int, Field(ge=1, le=10**6)]  # puppets, or clips to validate on
NumFrames = Annotated[int, Field(ge=2, le=10**5)]  # of a clip; the largest number is an hour
NumSamples = Annotated[int, Field(ge=1, le=2**16)]  # of a batch
NumImages = Annotated[int, Field(ge=1, le=256)]  # rows of a picture grid
NumWorkers = Annotated[int, Field(ge=0, le=1024)]
NumStrips = Annotated[int, Field(ge=1, le=256)]
GridSize = Annotated[int, Field(ge=2, le=32)]  # every pixel depends on the square of this number
Grey = Annotated[float, Field(ge=0, le=255)]
ClipRatio = Annotated[float, Field(gt=1, le=1e6)]
ClipWindow = Annotated[int, Field(ge=2, le=10**5)]
Milestones = Annotated[list[Steps], Field(max_length=1000)]
Pair = Annotated[list[Positive], Field(min_length=2, max_length=2)]
NumPixels = Annotated[int, Field(ge=1, lt=2**31)]  # FFmpeg's own limit
Width = Annotated[int, Field(ge=1, le=2**13)]  # channels; at most 2.4 GB for a 3 x 3 convolution
VggWidth = Annotated[int, Field(ge=1, le=128)]  # published: 64; times 8 in the deep layers
NumBlocks = Annotated[int, Field(ge=1, le=10)]  # each halves the image
NumResBlocks = Annotated[int, Field(ge=1, le=100)]  # published: 6
NumKeypoints = Annotated[int, Field(ge=1, le=1000)]  # published: 10; each warps the image once

ReluLayer = Literal[
    "relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu3_4",
    "relu4_1", "relu4_2", "relu4_3", "relu4_4", "relu5_1", "relu5_2", "relu5_3", "relu5_4",
]  # fmt: skip
MaskInput = Literal["source_mask", "driving_mask"]
MaskInputs = Annotated[list[MaskInput], Field(max_length=2), BeforeValidator(_check_mask_inputs)]
