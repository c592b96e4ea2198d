"""Checks the content of an untrusted checkpoint before it is used.

The reader of checkpoints runs no code, but a small file can still hold a tensor that repeats one
number so often that it would fill all memory.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, NotRequired, TypeGuard

import torch
from pydantic import Field, InstanceOf, Strict, StrictBool, StrictStr, TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from common.errors import first_problem
from common.speed_trial import Precision
from configs.safe_yaml import check_text, check_tree

MAX_COUNT: Final = 2**53  # of steps and epochs
MAX_PARTS: Final = 10**6  # of the training state; with all branches it has some 3,000
MAX_DEPTH: Final = 20
MAX_SHARED: Final = 4  # how often a number that the file stores may belong to a tensor, on average
SMALL: Final = 2**20  # bytes that tensors may state together, however few the file stores for them
MAX_SECONDS: Final = 10**10  # of a training; 300 years

_Number = Annotated[float, Strict()]  # also integers; not finite in a run that has failed
_Count = Annotated[int, Strict(), Field(ge=0, lt=MAX_COUNT)]


class _Algorithm(TypedDict):
    """State dict of a torch optimizer; `Optimizer.load_state` compares it with the parameters."""

    state: dict[int, dict[StrictStr, Any]]
    param_groups: list[dict[StrictStr, Any]]


class _Optimizer(TypedDict):
    adam: NotRequired[_Algorithm]
    sgd: NotRequired[_Algorithm]
    scaler: dict[StrictStr, Annotated[_Number, Field(allow_inf_nan=False)]]
    bad_steps: InstanceOf[Tensor]
    bad_in_a_row: InstanceOf[Tensor]
    clipped_steps: NotRequired[InstanceOf[Tensor]]
    recent_norms: NotRequired[dict[StrictStr, InstanceOf[Tensor]]]


class _Means(TypedDict):
    sums: list[tuple[list[StrictStr], InstanceOf[Tensor]]]
    minima: dict[StrictStr, InstanceOf[Tensor]]


class _Log(TypedDict):
    logged_at: _Count
    means: _Means


class _Numerics(TypedDict):
    precision: Precision
    channels_last: StrictBool


class _Training(TypedDict):
    """The training state, see `Trainer`; checkpoints of earlier versions lack some keys."""

    optimizer: _Optimizer
    seconds: Annotated[InstanceOf[float], Field(ge=0, le=MAX_SECONDS)]
    best_l1: NotRequired[InstanceOf[float]]
    log: NotRequired[_Log]
    numerics: NotRequired[_Numerics]


class _Average(TypedDict):
    """State of `MovingAverage`; its networks have a check of their own."""

    num_updates: _Count


class _Provenance(TypedDict):
    """Where the weights of a slim checkpoint come from; a later version may know more keys."""

    weights: NotRequired[Literal["average", "raw"]]
    exported_from: NotRequired[StrictStr]
    branches_from: NotRequired[StrictStr]
    licence: NotRequired[StrictStr | None]
    dtype: NotRequired[Literal["float16"]]  # of the file; in memory the weights are float32
    published: NotRequired[StrictStr]  # one of `conversion.PROJECTS`
    epoch: NotRequired[_Count | None]


_TRAINING: Final = TypeAdapter(_Training)
_METRICS: Final = TypeAdapter(dict[StrictStr, _Number])
_PROVENANCE: Final = TypeAdapter(_Provenance)
_AVERAGE: Final = TypeAdapter(_Average)
_DTYPES: Final = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def is_plain(value: Any) -> TypeGuard[Tensor]:
    """Whether `value` is an ordinary tensor of real numbers in CPU memory.

    Files may also hold sparse or complex tensors, and tensors without content.
    """
    if not isinstance(value, Tensor) or value.is_nested or value.dtype not in _DTYPES:
        return False
    return value.layout == torch.strided and value.device.type == "cpu"


def check_content(content: dict[str, Any]) -> None:
    """Make sure that each key of one of our checkpoints has content of the right kind.

    No tensor may have more elements than the file stores numbers for it, nor may many tensors share
    theirs.

    Raises:
        ValueError: a key is wrong; names it.
    """
    for key in ("step", "epoch", "batch"):
        _check_count(key, content[key])
    if content.get("planned_steps") is not None:
        _check_count("planned_steps", content["planned_steps"])
    if not isinstance(content["training"], dict):
        raise ValueError("training is not a mapping")
    _check_parts(content["training"])
    if content["training"]:  # a slim checkpoint has none
        _check_schema("training", content["training"], _TRAINING)
    if content.get("run_id") is not None and not is_run_id(content["run_id"]):
        raise ValueError("run_id is not the id of a run")
    check_metrics(content["metrics"])
    _check_plain("provenance", content.get("provenance", {}))
    _check_schema("provenance", content.get("provenance", {}), _PROVENANCE)
    check_states("networks", content["networks"])
    if content["average"] is not None:
        average = content["average"]
        if not isinstance(average, dict):
            raise ValueError("average is not a mapping")
        check_states("average.networks", average.get("networks"))
        _check_schema("average", average, _AVERAGE)


def check_metrics(metrics: Any) -> None:
    """Make sure that `metrics` maps names to numbers, which may be infinite or NaN.

    Raises:
        ValueError: it does not; names the place.
    """
    _check_plain("metrics", metrics)
    _check_schema("metrics", metrics, _METRICS)


def _check_schema(key: str, value: Any, schema: TypeAdapter[Any]) -> None:
    try:
        schema.validate_python(value)
    except ValidationError as error:
        raise ValueError(first_problem(error, key)) from None


def is_run_id(value: Any) -> TypeGuard[str]:
    """Whether `value` can be the id of a run."""
    return isinstance(value, str) and re.fullmatch(r"[\w-]{1,64}", value) is not None


def _check_parts(tree: Any) -> None:
    """Raise ValueError unless `tree` has plain tensors and texts, and at most MAX_PARTS parts.

    An object that several places refer to is counted at each place.
    """
    num_left = MAX_PARTS
    waiting = [(tree, 0)]
    tensors: list[Tensor] = []
    while waiting:
        part, depth = waiting.pop()
        num_left -= 1
        if num_left < 0 or depth > MAX_DEPTH:
            raise ValueError(f"training has more than {MAX_PARTS} parts, or {MAX_DEPTH} levels")
        if isinstance(part, dict):
            waiting += ((value, depth + 1) for pair in part.items() for value in pair)
        elif isinstance(part, list | tuple):
            waiting += ((value, depth + 1) for value in part)
        elif isinstance(part, str):
            _check_name("training", part)
        elif isinstance(part, Tensor):
            if not is_plain(part):
                raise ValueError("training holds a tensor that is not a plain one")
            _check_size("training", part)
            tensors.append(part)
    _check_shared("training", tensors)


def _check_name(place: str, text: str) -> None:
    try:
        check_text(text)
    except ValueError as error:
        raise ValueError(f"{place} has {error}") from None


def _check_size(place: str, tensor: Tensor) -> None:
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{place} states more numbers than the file holds")


def _check_shared(place: str, tensors: Iterable[Tensor]) -> None:
    """Raise ValueError if tensors share their numbers so often that to convert or to compare them
    would take far more memory or time than the size of the file lets expect.
    """
    num_stated, held = 0, {}
    for tensor in tensors:
        num_stated += tensor.numel() * tensor.element_size()
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
    if num_stated > SMALL + MAX_SHARED * sum(held.values()):
        raise ValueError(
            f"{place} has tensors that share their numbers: they state {num_stated:,} bytes, and "
            f"the file holds {sum(held.values()):,} for them"
        )


def _check_count(key: str, number: Any) -> None:
    if type(number) is not int or not 0 <= number < MAX_COUNT:
        raise ValueError(f"{key} is not a whole number of at least 0")


def _check_plain(key: str, value: Any) -> None:
    """Raise ValueError unless `value` is a mapping of plain values, no larger than a config."""
    if not isinstance(value, dict):
        raise ValueError(f"{key} is not a mapping")
    try:
        check_tree(value)
    except ValueError as error:
        raise ValueError(f"{key} has {error}") from error


def check_states(key: str, networks: Any) -> None:
    """Make sure that `networks` maps names to state dicts of plain tensors.

    Raises:
        ValueError: it does not; names the place after `key`.
    """
    if not isinstance(networks, dict):
        raise ValueError(f"{key} is not a mapping")
    for name, state in networks.items():
        if not isinstance(name, str) or not isinstance(state, dict):
            raise ValueError(f"{key} holds something that is not a state dict")
        _check_name(key, name)
        for tensor_name, tensor in state.items():
            place = f"{key}.{name}.{tensor_name:.60}" if isinstance(tensor_name, str) else key
            if place == key or not is_plain(tensor):
                raise ValueError(f"{place} holds something that is not a plain tensor")
            _check_name(key, tensor_name)
            _check_size(place, tensor)
    _check_shared(key, (tensor for state in networks.values() for tensor in state.values()))
