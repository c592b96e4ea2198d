"""Write a slim checkpoint for sharing: python -m checkpoints.export CHECKPOINT --output model.pt

The result has the networks needed for animation, the config and the metrics. It loads like any
checkpoint, but cannot be resumed. With --output model.safetensors it has no pickle in it at all.
With --half its weights are rounded to float16, and the file has half the size. With --branches-from
it has the branches of other checkpoints too, or in place of those of CHECKPOINT.
Beside it, model.json describes it for scripts, and model.md is its model card. With --onnx DIR the
networks of the motion branch are also written for other programs, for images of the size used in
training and any batch size; docs/checkpoints.md has their names, inputs and outputs for each kind
of motion model.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal

import torch

from checkpoints import checkpoint
from checkpoints.branches_from import with_branches_from
from checkpoints.checkpoint import Checkpoint
from checkpoints.half_weights import HALF, to_half
from checkpoints.model_card import model_card
from checkpoints.onnx_files import files_to_write, require_packages, write_onnx
from checkpoints.weights import load_model
from common.cli import run_entry_point, say
from common.errors import UserError
from common.file_lock import holder, locked
from common.files import (
    check_folder_name,
    check_output_file,
    file_sha256,
    make_folder,
    name_as_text,
    named_failures,
    remove_leftovers,
    replacing,
    short_stem,
)
from common.json_files import read_json
from common.safe_paths import exists, resolve
from common.safetensors_files import SUFFIX, require_package
from configs.loading import load_config
from configs.safe_yaml import check_tree

Weights = Literal["average", "raw"]
WEIGHTS: Final[tuple[Weights, ...]] = ("average", "raw")


def main(arguments: argparse.Namespace) -> None:
    path, output = Path(arguments.checkpoint), Path(arguments.output)
    check_output_file(output, "model.pt")
    description, card = output.with_suffix(".json"), output.with_suffix(".md")
    if output in (description, card) or output.suffix == ".onnx":
        raise UserError(f"--output {output}: this is the name of another kind; give model.pt")
    others = [Path(other) for other in arguments.branches_from]
    for written in (output, description, card):
        for read in (path, *others):
            if resolve(written) == resolve(read):
                raise UserError(f"--output {output} would replace {read}; choose another path")
    _require_own(output, description)
    if output.suffix == SUFFIX:
        require_package(f"--output {output}")
    if arguments.onnx is not None:
        require_packages()
        check_folder_name(Path(arguments.onnx))
    if arguments.licence is not None:
        try:
            check_tree(arguments.licence)  # as its reader will
        except ValueError as error:
            raise UserError(f"--licence: {error}; give plain text, such as its name") from None
    config = None if arguments.config is None else load_config(arguments.config)
    small = slim(checkpoint.load(path, config), arguments.weights, arguments.licence)
    for other in others:
        more = slim(checkpoint.load(other), arguments.weights, arguments.licence)
        small = with_branches_from(small, more)
    if arguments.half or "dtype" in small.provenance:  # what is rounded loses nothing once more
        small = halved(small)
    model = load_model(small, torch.device("cpu"))  # raises if the weights do not fit the config
    if arguments.onnx is not None and model.motion is None:
        raise UserError(f"--onnx: {path} has no motion branch; only that can be written")
    networks = {}
    if arguments.onnx is not None and model.motion is not None:
        networks = files_to_write(model.motion, small.config.data.size, Path(arguments.onnx))

    with _alone(output):
        described = _write(small, output, description, card)
    weights = f"{described['weights']} {small.stored}"
    say(f"{output}: {small.age}, {weights}, {described['bytes']:,} bytes")
    print(f"sha256 {described['sha256']}")
    write_onnx(networks)
    for file in networks:
        say(str(file))


def _require_own(output: Path, description: Path) -> None:
    """Raise UserError if an export would replace a file that none wrote, such as a run.json."""
    for path, is_own in ((output, _is_export), (description, _is_description)):
        if exists(path) and not is_own(path):
            raise UserError(
                f"--output {output} would replace {path}, which no earlier export wrote; choose "
                "another name, or move that file away"
            )


def _is_export(path: Path) -> bool:
    try:
        return "weights" in checkpoint.load(path).provenance
    except UserError:
        return False


def _is_description(path: Path) -> bool:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.keys() >= {"file", "sha256", "bytes"}


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Context manager: holds a lock, so that no two exports mix their files of one name.

    Raises:
        UserError: another export writes there, or nothing can be written there.
    """
    lock = output.with_name(f".{short_stem(output)}.export.lock")
    with ExitStack() as stack:
        with named_failures(output):
            make_folder(output.parent)
            try:
                stack.enter_context(locked(lock))
            except BlockingIOError:
                raise UserError(
                    f"--output {output}: {holder(lock)} exports to this name; wait until it ends"
                ) from None
        written = rf"{re.escape(short_stem(output))}({re.escape(output.suffix)}|\.json|\.md)"
        remove_leftovers(output.parent, written)
        yield


def _write(small: Checkpoint, output: Path, description: Path, card: Path) -> dict[str, object]:
    """Write the checkpoint, its card and its description, and return the latter.

    All are written whole before the first of an earlier export is replaced. The description is
    removed before and renamed last, so that none is ever beside a file that it does not describe.
    A card that is there is kept: what its author filled in must not be lost.

    Raises:
        UserError: a file cannot be written.
    """
    is_new = not exists(card)
    with ExitStack() as stack:  # it renames in the reverse order
        to_description = stack.enter_context(replacing(description))
        to_card = stack.enter_context(replacing(card)) if is_new else None
        to_output = stack.enter_context(replacing(output))
        checkpoint.save_slim(to_output, small)
        described = describe(small, output, to_output)
        with named_failures(description):
            to_description.write_text(json.dumps(described, indent=2, allow_nan=False) + "\n")
        if to_card is not None:
            with named_failures(card):
                to_card.write_text(model_card(small, output), encoding="utf-8")
        with named_failures(description):
            description.unlink(missing_ok=True)
    if is_new:
        say(f"{card}: the model card; fill in what it marks")
    else:
        say(f"{card}: kept as it is; remove it for a new one")
    return described


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
        | {"weights": chosen, "exported_from": name_as_text(saved.path.name)}
        | ({} if licence is None else {"licence": licence}),
    )


def halved(small: Checkpoint) -> Checkpoint:
    """Return `small` with its weights rounded to float16.

    Raises:
        CheckpointError: a number is not finite, or too large for float16; names its tensor.
    """
    networks = to_half(small.networks, small.path)
    return small._replace(networks=networks, provenance=small.provenance | {"dtype": HALF})


def describe(small: Checkpoint, path: Path, written: Path) -> dict[str, object]:
    """Describe the file that will be at `path`, for people and scripts.

    Args:
        written: where `small` was written to.
    """
    run, metrics = small.config.run.output_dir, small.metrics.items()
    return {
        **small.provenance,  # first: it may hold anything, and must replace nothing
        "file": path.name,
        "config": None if run is None else Path(run).name,
        "step": small.step,
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics},
        "sha256": file_sha256(written),
        "bytes": written.stat().st_size,
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
        "--branches-from",
        action="append",
        default=[],
        metavar="OTHER",
        help="the branches in this checkpoint are added, or replace those of CHECKPOINT; may be "
        "given several times. Export a published file first",
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="round the weights to float16: half the size, computed with as before",
    )
    parser.add_argument(
        "--licence", metavar="TEXT", help="licence of the weights, such as CC-BY-NC-4.0"
    )
    parser.add_argument("--onnx", metavar="DIR", help="also write the motion branch as ONNX")
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
