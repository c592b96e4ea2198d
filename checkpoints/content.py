"""The content of a checkpoint file as one dict: of torch's files, and of safetensors files.

A safetensors file holds the tensors under `network.name`, and everything else as JSON in its
metadata. It is for sharing: it has neither a moving average nor a training state.
"""

import json
import math
from pathlib import Path
from typing import Any, Final

from checkpoints.load_report import flatten
from common import safetensors_files
from common.errors import UserError
from common.json_files import JsonError, parse_json
from common.safe_paths import open_to_read
from common.tensor_files import CheckpointError, read_tensors

_KEY: Final = "image-animation"  # of the metadata; the only one, so that files are reproducible
_HEAD: Final = 9  # bytes by which a safetensors file is known
_PLAIN: Final = ("format", "config", "step", "epoch", "batch", "planned_steps")
_FACTS: Final = (*_PLAIN, "metrics", "provenance", "versions")


def read_content(path: Path) -> Any:
    """Read the content of a checkpoint to the CPU, without running any code.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or holds something else.
    """
    if not _is_safetensors(path):
        return read_tensors(path)
    try:
        tensors, metadata = safetensors_files.read_safetensors(path)
        if _KEY not in metadata:
            raise CheckpointError(
                f"{path}: safetensors without a config; only those that python -m "
                "checkpoints.export wrote are checkpoints"
            )
        facts = parse_json(metadata[_KEY], unique_keys=True)
        if not isinstance(facts, dict) or not facts.keys() >= {*_FACTS, "crc32"}:
            raise CheckpointError(f"{path}: its metadata lack a part; export it once more")
        if safetensors_files.file_checksum(path) != facts["crc32"]:
            raise CheckpointError(f"{path}: damaged: another CRC-32; fetch it again")
    except CheckpointError:
        raise
    except JsonError as error:
        raise CheckpointError(f"{path}: its metadata are {error}") from error
    except UserError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    networks: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        network, _, own = name.partition(".")
        networks.setdefault(network, {})[own] = tensor
    return {name: facts[name] for name in _FACTS} | {
        "networks": networks,
        "average": None,
        "training": {},
    }


def to_safetensors(content: dict[str, Any]) -> bytes:
    """The bytes of a safetensors file of a slim checkpoint; equal content gives equal bytes.

    Raises:
        UserError: the package safetensors is not installed.
    """
    assert not content["training"], "it is for slim checkpoints"
    assert content["average"] is None, "it is for slim checkpoints"
    assert not any("." in name for name in content["networks"]), "a dot ends a network's name"
    facts = {name: content[name] for name in _FACTS}
    metrics = content["metrics"].items()
    facts["metrics"] = {name: value for name, value in metrics if math.isfinite(value)}
    tensors = flatten(content["networks"])
    facts["crc32"] = safetensors_files.checksum(safetensors_files.to_bytes(tensors, {}))
    text = json.dumps(facts, allow_nan=False)
    return safetensors_files.to_bytes(tensors, {_KEY: text})


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins as one; False where it cannot be read, which the reader tells."""
    try:
        with open_to_read(path) as file:
            head = file.read(_HEAD)
    except (OSError, UserError, ValueError):
        return False
    return safetensors_files.is_safetensors(head)
