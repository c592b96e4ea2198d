"""Show the timed trials that decide what `auto` means on this machine, for maps of several sizes.

    python -m benchmarks.trials

The first line is the trial of precision: time in bf16 divided by time in float32. The table is the
trial of memory layout: time of a few layers in channels-last memory, forward and backward in
float32, divided by their time in planar memory. Which layout is faster depends on the size of the
maps and on the processor.
"""

import argparse
import sys

from benchmarks.tables import Cell, markdown_table
from common.cli import add_device_argument, pick_device, run_entry_point
from common.speed_trial import Shape, half_precision_ratio, layout_ratio

# Maps of the demo; of the networks for 256 x 256 at their first, second and third size, with one
# sample; and with a batch of four.
SHAPES = (
    Shape(8, 24, 64),
    Shape(1, 64, 256),
    Shape(1, 64, 128),
    Shape(1, 256, 64),
    Shape(4, 64, 64),
)


def main(arguments: argparse.Namespace) -> None:
    device = pick_device(arguments.device)
    print(f"bf16 to float32: {half_precision_ratio('bf16', device):.2f}\n")
    rows: list[dict[str, Cell]] = [
        {
            "batch x channels x side x side": f"{shape.batch} x {shape.channels} x {shape.side}²",
            "channels-last to planar": layout_ratio("float32", device, shape),
        }
        for shape in SHAPES
    ]
    print(markdown_table(rows))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trials",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_device_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
