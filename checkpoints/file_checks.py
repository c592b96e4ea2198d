"""What the content of a checkpoint must be before anything is made of it.

A checkpoint may be a stranger's. Its reader runs no code, but a small file can still stand for more
than there is memory: a tensor that repeats one number.
"""

from typing import Any, Final, TypeGuard

import torch
from torch import Tensor

from configs.safe_yaml import check_tree

MAX_COUNT: Final = 2**53  # of steps and epochs
_DTYPES: Final = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def is_plain(value: Any) -> TypeGuard[Tensor]:
    """Whether `value` is a tensor of real numbers in memory: files may hold sparse ones, complex
    ones, and some without content.
    """
    if not isinstance(value, Tensor) or value.is_nested or value.dtype not in _DTYPES:
        return False
    return value.layout == torch.strided and value.device.type == "cpu"


def check_content(content: dict[str, Any]) -> None:
    """Make sure that a checkpoint of ours has what its keys promise, and no tensor that is larger
    than the numbers which the file holds for it.

    Raises:
        ValueError: says which key is wrong.
    """
    for key in ("step", "epoch", "batch"):
        _check_count(key, content[key])
    if content.get("planned_steps") is not None:
        _check_count("planned_steps", content["planned_steps"])
    for key in ("training", "metrics"):
        if not isinstance(content[key], dict):
            raise ValueError(f"{key} is no mapping")
    _check_plain("metrics", content["metrics"])
    _check_plain("provenance", content.get("provenance", {}))
    _check_states("networks", content["networks"])
    if content["average"] is not None:
        average = content["average"]
        if not isinstance(average, dict):
            raise ValueError("average is no mapping")
        _check_states("average.networks", average.get("networks"))


def _check_count(key: str, number: Any) -> None:
    if type(number) is not int or not 0 <= number < MAX_COUNT:
        raise ValueError(f"{key} is no whole number from 0 on")


def _check_plain(key: str, value: Any) -> None:
    """A mapping of plain values, of a size that people can read."""
    if not isinstance(value, dict):
        raise ValueError(f"{key} is no mapping")
    try:
        check_tree(value)
    except ValueError as error:
        raise ValueError(f"{key} has {error}") from error


def _check_states(key: str, networks: Any) -> None:
    """State dicts by the name of their network."""
    if not isinstance(networks, dict):
        raise ValueError(f"{key} is no mapping")
    for name, state in networks.items():
        if not isinstance(name, str) or not isinstance(state, dict):
            raise ValueError(f"{key} holds what is no state dict")
        for tensor_name, tensor in state.items():
            place = f"{key}.{name}.{tensor_name:.60}" if isinstance(tensor_name, str) else key
            if place == key or not is_plain(tensor):
                raise ValueError(f"{place} holds what is no plain tensor")
            if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                raise ValueError(f"{place} states more numbers than the file holds")
