"""Measure what each discriminator costs: time of a training step, memory, parameters.

    python -m benchmarks.adversarial --config demo.yaml [key.sub=value ...]

The rows are those of benchmarks/ablation.py. They take turns with the same batch in one process, so
that other load on the machine affects all of them; the first rounds are left out.

    parameters  number of parameters of the discriminator
    plain       median time of a step that does not mix images
    mixing      median time of a step that does
    step        expected time of a step: the mean of both, weighted by the probability of mixing
                (discriminator.cut.probability, after the warm-up)
    ratio       step, divided by that of the first row
    memory      peak of a fresh process that takes a few steps, some of which mix, above what it
                held before the networks were built: memory of the CUDA device if there is one, else
                resident memory (Linux)

The time of the cut mask alone, which is part of a mixing step, is printed below the table.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from tqdm import tqdm

from benchmarks.ablation_rows import row_overrides
from benchmarks.tables import markdown_table
from benchmarks.training_steps import (
    build_trainer,
    first_batch,
    in_fresh_process,
    memory_above,
    peak_memory,
    seconds,
    step_parser,
    take_step,
)
from common.batch_random import BatchRandom
from common.cli import pick_device, run_entry_point
from common.errors import UserError
from common.files import check_output_file, replacing
from common.safe_paths import printable
from configs.loading import load_config
from configs.schema import Config
from datasets.pairs import PairBatch
from modules.cut_masks import priority_cut, rectangle_cut
from training.trainer import Trainer

MEASURED: Final = ("fomm", "fomm-adv", "unet", "cutmix", "prioritycut")  # rows of the ablation
MIXES, PLAIN = 0.0, 1.0  # values of `host_random`; a step mixes if it is below the probability
_WARM_UP = 3  # rounds that are left out: libraries choose kernels, and memory is allocated


class Variant(NamedTuple):
    """The trainer of a row, with its networks.

    kinds: the `host_random` of each kind of step that the row has, by the kind's name.
    """

    trainer: Trainer
    kinds: dict[str, float]

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the discriminator."""
        adversary = self.trainer.adversary
        return 0 if adversary is None else sum(p.numel() for p in adversary.parameters())


def main(arguments: argparse.Namespace) -> None:
    if arguments.config is None:
        raise UserError("--config is missing: give a file, or a name such as demo.yaml")
    output = Path(arguments.output)
    check_output_file(output, "adversarial.json")
    device = pick_device(arguments.device)
    configs = {
        row: load_config(
            arguments.config,
            [
                *arguments.overrides,
                *row_overrides(arguments.config, arguments.overrides, row),
            ],
        )
        for row in MEASURED
    }
    # Memory comes first, in a fresh process for each row, since a process keeps memory it once had.
    memory = {
        row: fresh_peak_memory(config, arguments.device) if arguments.memory else None
        for row, config in configs.items()
    }
    variants = {row: build_variant(config, device) for row, config in configs.items()}
    batch = first_batch(configs[MEASURED[0]]).to(device)
    medians = time_steps(variants, batch, arguments.rounds)
    rows = cost_rows(configs, variants, medians, memory)
    report = {
        "config": arguments.config,
        "overrides": arguments.overrides,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "batch_size": configs[MEASURED[0]].train.batch_size,
        "rounds": arguments.rounds,
        "rows": rows,
        "cut_mask_ms": time_cut_masks(configs["prioritycut"], device, arguments.rounds),
    }
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    cells = [{name: _text(name, value) for name, value in row.items()} for row in rows]
    print(markdown_table(cells))
    masks = ", ".join(f"{name} {value:.3f} ms" for name, value in report["cut_mask_ms"].items())
    print(f"\ncut mask of a batch: {masks}\n{printable(str(output))}")


def build_variant(config: Config, device: torch.device) -> Variant:
    """Build the networks, the optimizer and the losses of a row, as train.py does."""
    trainer = build_trainer(config, device)
    mixes = config.discriminator is not None and config.discriminator.cut.kind != "none"
    return Variant(trainer, {"plain": PLAIN} | ({"mixing": MIXES} if mixes else {}))


def time_steps(
    variants: dict[str, Variant], batch: PairBatch, num_rounds: int
) -> dict[tuple[str, str], float]:
    """Median seconds of a step, by (row, kind); the rows take turns."""
    device = batch.frames.device
    found: dict[tuple[str, str], list[float]] = {}
    for index in tqdm(range(_WARM_UP + num_rounds), unit="round", disable=None):
        for row, variant in variants.items():
            for kind, host_random in variant.kinds.items():
                taken = seconds(partial(take_step, variant.trainer, batch, host_random), device)
                if index >= _WARM_UP:
                    found.setdefault((row, kind), []).append(taken)
    return {case: statistics.median(times) for case, times in found.items()}


def cost_rows(
    configs: dict[str, Config],
    variants: dict[str, Variant],
    medians: dict[tuple[str, str], float],
    memory: dict[str, int | None],
) -> list[dict[str, Any]]:
    """The rows of the table; see the file's docstring.

    PriorityCut has two rows: mixing with the config's probability, and in every step.
    """
    rows = []
    for row, variant in variants.items():
        plain, mixing = medians[row, "plain"], medians.get((row, "mixing"))
        discriminator = configs[row].discriminator
        probability = discriminator.cut.probability if mixing is not None and discriminator else 0.0
        for name, share in {row: probability, f"{row} every step": 1.0}.items():
            if name != row and row != "prioritycut":
                continue
            step = plain if mixing is None else (1 - share) * plain + share * mixing
            peak = memory[row]
            rows.append(
                {
                    "row": name,
                    "parameters": variant.num_parameters,
                    "plain_ms": 1000 * plain,
                    "mixing_ms": None if mixing is None else 1000 * mixing,
                    "probability": share,
                    "step_ms": 1000 * step,
                    "ratio": step / medians[next(iter(variants)), "plain"],
                    "memory_mib": None if peak is None else peak / 2**20,
                }
            )
    return rows


def time_cut_masks(config: Config, device: torch.device, num_rounds: int) -> dict[str, float]:
    """Median milliseconds of `priority_cut` and of `rectangle_cut`, by name, for a batch of maps of
    the dense motion's size.
    """
    assert config.motion is not None, "a discriminator needs it"
    height, width = (round(side * config.motion.field_scale) for side in config.data.size)
    generator = torch.Generator(device).manual_seed(0)
    shape = (config.train.batch_size, 1, height, width)
    background, occlusion = torch.rand(2, *shape, generator=generator, device=device)
    fraction = torch.rand(shape[0], generator=generator, device=device)
    cuts: dict[str, Callable[[], object]] = {
        "priority_cut": lambda: priority_cut(background, occlusion, fraction),
        "rectangle_cut": lambda: rectangle_cut(
            background, occlusion, fraction, random=BatchRandom(generator)
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in cuts}
    for index in range(_WARM_UP + num_rounds):
        for name, cut in cuts.items():
            taken = seconds(cut, device)
            if index >= _WARM_UP:
                found[name].append(1000 * taken)
    return {name: statistics.median(times) for name, times in found.items()}


def fresh_peak_memory(config: Config, device: str) -> int | None:
    """Run `memory_of_steps` in a fresh process."""
    return in_fresh_process(partial(memory_of_steps, config, device))


def memory_of_steps(config: Config, device_name: str) -> int | None:
    """Peak memory of a few steps, in bytes, above what the process held before the networks were
    built; None if the system does not report it.
    """
    device = pick_device(device_name)
    batch = first_batch(config).to(device)
    before = peak_memory(device)
    variant = build_variant(config, device)
    for _ in range(3):
        for host_random in variant.kinds.values():
            take_step(variant.trainer, batch, host_random)
    return memory_above(before, device)


def _text(name: str, value: str | float | None) -> str:
    """The text of the value of the column `name`."""
    if value is None or isinstance(value, str):
        return value or ""
    if name == "parameters":
        return f"{value:,}"
    return f"{value:.2f}" if name in ("probability", "ratio") else f"{value:.1f}"


def build_parser() -> argparse.ArgumentParser:
    parser = step_parser(
        "benchmarks.adversarial", __doc__, rounds=15, output="runs/adversarial.json"
    )
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also measure memory, in a new process for each row (default)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_entry_point(main, build_parser()))
