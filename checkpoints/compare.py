"""Compare two checkpoints to the last bit: python -m checkpoints.compare A.pt B.pt

Prints the tensors and numbers that differ in the networks, the moving average and the training
state. The exit code is 1 if there are any. Weights stored in float16 are compared as the float32
numbers that they are computed with; a line names such a file.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from checkpoints.checkpoint import load
from common.cli import run_entry_point, say

COMPARED = ("step", "networks", "average", "training")


def main(arguments: argparse.Namespace) -> int:
    a, b = (load(Path(path)) for path in (arguments.a, arguments.b))
    for saved in (a, b):
        if "dtype" in saved.provenance:
            say(f"{saved.path}: {saved.stored}")
    found = []
    for key in COMPARED:
        one, other = (_without_seconds(getattr(saved, key)) for saved in (a, b))
        found += differences(one, other, key)
    for place in found:
        say(place)
    print(f"{len(found)} differences" if found else "the same to the last bit")
    return 1 if found else 0


def _without_seconds(part: Any) -> Any:
    """Leave out the time that a run took, which is never the same."""
    return {k: v for k, v in part.items() if k != "seconds"} if isinstance(part, dict) else part


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """List where two trees of containers, tensors and numbers differ, to the last bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bits(a), _bits(b))
        return [] if same else [place]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], f"{place}.{key}")]
    if isinstance(a, list | tuple) and type(a) is type(b) and len(a) == len(b):
        return [d for i in range(len(a)) for d in differences(a[i], b[i], f"{place}[{i}]")]
    if type(a) is not type(b) or isinstance(a, dict | list | tuple | torch.Tensor):
        return [place]  # Python would compare tensors in containers, and fail
    return [] if a == b or (a != a and b != b) else [place]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, which are equal also where it is NaN."""
    return tensor.contiguous().flatten().view(torch.uint8)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m checkpoints.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", metavar="A.pt")
    parser.add_argument("b", metavar="B.pt")
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
