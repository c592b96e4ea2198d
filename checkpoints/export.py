"""Write a slim checkpoint for sharing: python -m checkpoints.export CHECKPOINT --output model.pt

The result has the networks needed for animation, the config and the metrics. It loads like any
checkpoint, but cannot be resumed. With --output model.safetensors it has no pickle in it at all.
Beside it, model.json describes it for scripts, and model.md is its model card. With --onnx DIR the
networks of the motion branch are also written for other programs, for images of the size used in
training and any batch size; docs/checkpoints.md has their names, inputs and outputs for each kind
of motion model.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Final, Literal

import torch

from checkpoints import checkpoint
from checkpoints.checkpoint import Checkpoint
from checkpoints.model_card import model_card
from checkpoints.onnx_files import require_packages, write_onnx
from checkpoints.weights import load_model
from common.cli import run_entry_point, say
from common.errors import UserError
from common.files import file_sha256, replacing
from common.safetensors_files import SUFFIX, require_package
from configs.loading import load_config

Weights = Literal["average", "raw"]
WEIGHTS: Final[tuple[Weights, ...]] = ("average", "raw")


def main(arguments: argparse.Namespace) -> None:
    path, output = Path(arguments.checkpoint), Path(arguments.output)
    description, card = output.with_suffix(".json"), output.with_suffix(".md")
    if output in (description, card):
        raise UserError(f"--output {output}: this is the name of a description; give model.pt")
    for written in (output, description, card):
        if written.resolve() == path.resolve():
            raise UserError(f"--output {output} would replace {path}; choose another path")
    if output.suffix == SUFFIX:
        require_package(f"--output {output}")
    if arguments.onnx is not None:
        require_packages()
    config = None if arguments.config is None else load_config(arguments.config)
    small = slim(checkpoint.load(path, config), arguments.weights, arguments.licence)
    model = load_model(small, torch.device("cpu"))  # raises if the weights do not fit the config
    if arguments.onnx is not None and model.motion is None:
        raise UserError(f"--onnx: {path} has no motion branch; only that can be written")

    checkpoint.save_slim(output, small)
    described = describe(small, output)
    with replacing(description) as temporary:
        temporary.write_text(json.dumps(described, indent=2) + "\n")
    _write_card(card, model_card(small, output))
    say(f"{output}: {small.age}, {described['weights']} weights, {described['bytes']:,} bytes")
    print(f"sha256 {described['sha256']}")
    if arguments.onnx is not None and model.motion is not None:
        for file in write_onnx(model.motion, small.config.data.size, Path(arguments.onnx)):
            say(str(file))


def _write_card(path: Path, text: str) -> None:
    """Write the model card, unless there is one: what its author filled in must not be lost."""
    if path.exists():
        say(f"{path}: kept as it is; remove it for a new one")
        return
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"{path}: the model card; fill in what it marks")


def slim(
    saved: Checkpoint, weights: Weights | None = None, licence: str | None = None
) -> Checkpoint:
    """Return `saved` with only what animation needs.

    Args:
        weights: `average` for the moving average, `raw` for the trained weights themselves; None
            for those with which `saved` would be evaluated.
        licence: of the weights; None for the one that `saved` states, if any.

    Raises:
        UserError: `saved` has no such weights.
    """
    held: list[Weights] = ["raw"] if saved.average is None else ["average", "raw"]
    if "weights" in saved.provenance:  # already slim
        held = [saved.provenance["weights"]]
    chosen = weights or held[0]
    if chosen not in held:
        raise UserError(
            f"--weights {chosen}: {saved.path} has {held[0]} weights alone; leave the option out"
        )
    raw = saved._replace(average=None)
    networks = (saved if chosen == held[0] else raw).evaluation_networks
    return raw._replace(
        networks=networks,
        training={},
        metrics=saved.metrics if chosen == held[0] else {},  # measured with the weights held[0]
        provenance=saved.provenance
        | {"weights": chosen, "exported_from": saved.path.name}
        | ({} if licence is None else {"licence": licence}),
    )


def describe(small: Checkpoint, path: Path) -> dict[str, object]:
    """Describe the file at `path`, which `small` was written to, for people and scripts."""
    run = small.config.run.output_dir
    return {
        "file": path.name,
        "config": None if run is None else Path(run).name,
        "step": small.step,
        "metrics": small.metrics,
        **small.provenance,
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m checkpoints.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument(
        "--output", required=True, metavar="PATH", help="model.pt, or model.safetensors"
    )
    parser.add_argument("--config", metavar="FILE", help="the config for a published checkpoint")
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        help="average: the moving average (default, if there is one); raw: the trained weights",
    )
    parser.add_argument(
        "--licence", metavar="TEXT", help="licence of the weights, such as CC-BY-NC-4.0"
    )
    parser.add_argument("--onnx", metavar="DIR", help="also write the motion branch as ONNX")
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
