"""Train a model: python train.py --config vox.yaml [key.sub=value ...]

On several GPUs: torchrun --nproc-per-node 4 train.py --config vox.yaml ...
"""

import argparse
import sys

import common.openmp  # noqa: F401

from common.cli import add_device_argument, add_join_timeout_argument, run_entry_point
from common.distributed.processes import process_group
from common.distributed.torchrun_agent import ending_with_agent
from training.setup import set_up


def main(arguments: argparse.Namespace) -> int | None:
    """Train; returns 128 plus the number of the signal that ended the run, or None."""
    with (
        ending_with_agent(),
        process_group(arguments.join_timeout),
        set_up(arguments) as trainer,
    ):
        signal_number = None if trainer is None else trainer.run()
    return None if signal_number is None else 128 + signal_number


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__)
    parser.add_argument("--config", help="a YAML file, or the name of one in configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="change keys of the config"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="auto|PATH",
        help="continue from a checkpoint; auto (or no value): from the newest of the run, if any",
    )
    parser.add_argument(
        "--init-from",
        action="append",
        metavar="PATH",
        help="start from the weights of a checkpoint, own or published (fine-tuning); may be "
        "repeated: tensors of a later one replace those of an earlier one",
    )
    parser.add_argument("--print-config", action="store_true", help="print the config and stop")
    add_join_timeout_argument(parser)
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
