"""Checks the content of an untrusted checkpoint before it is used.

The reader of checkpoints runs no code, but a small file can still hold a tensor that repeats one
number so often that it would fill all memory.
"""

import re
from typing import Any, Final, TypeGuard

import torch
from torch import Tensor

from configs.safe_yaml import check_tree

MAX_COUNT: Final = 2**53  # of steps and epochs
MAX_PARTS: Final = 10**6  # of the training state; with all branches it has some 3,000
MAX_DEPTH: Final = 20
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

    No tensor may have more elements than the file stores numbers for it.

    Raises:
        ValueError: a key is wrong; names it.
    """
    for key in ("step", "epoch", "batch"):
        _check_count(key, content[key])
    if content.get("planned_steps") is not None:
        _check_count("planned_steps", content["planned_steps"])
    for key in ("training", "metrics"):
        if not isinstance(content[key], dict):
            raise ValueError(f"{key} is not a mapping")
    _check_training(content["training"])
    if content.get("run_id") is not None and not _is_run_id(content["run_id"]):
        raise ValueError("run_id is not the id of a run")
    _check_plain("metrics", content["metrics"])
    _check_plain("provenance", content.get("provenance", {}))
    check_states("networks", content["networks"])
    if content["average"] is not None:
        average = content["average"]
        if not isinstance(average, dict):
            raise ValueError("average is not a mapping")
        check_states("average.networks", average.get("networks"))


def _is_run_id(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w-]{1,64}", value) is not None


def _check_training(tree: Any) -> None:
    """Raise ValueError unless `tree` has plain tensors only, and no more parts than MAX_PARTS.

    An object that several places refer to is counted at each place.
    """
    num_left = MAX_PARTS
    waiting = [(tree, 0)]
    while waiting:
        part, depth = waiting.pop()
        num_left -= 1
        if num_left < 0 or depth > MAX_DEPTH:
            raise ValueError(f"training has more than {MAX_PARTS} parts, or {MAX_DEPTH} levels")
        if isinstance(part, dict):
            waiting += ((value, depth + 1) for value in part.values())
        elif isinstance(part, list | tuple):
            waiting += ((value, depth + 1) for value in part)
        elif isinstance(part, Tensor):
            if not is_plain(part):
                raise ValueError("training holds a tensor that is not a plain one")
            _check_size("training", part)


def _check_size(place: str, tensor: Tensor) -> None:
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{place} states more numbers than the file holds")


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
        for tensor_name, tensor in state.items():
            place = f"{key}.{name}.{tensor_name:.60}" if isinstance(tensor_name, str) else key
            if place == key or not is_plain(tensor):
                raise ValueError(f"{place} holds something that is not a plain tensor")
            _check_size(place, tensor)
